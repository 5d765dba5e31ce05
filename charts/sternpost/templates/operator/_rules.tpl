{{/* What the operator may do where jobs are. It holds what it grants to a job's account, or the API server would not let it. */}}
{{- define "sternpost.jobRules" -}}
- apiGroups: [sternpost.dev]
  resources: [trainingjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [sternpost.dev]
  resources: [trainingjobs/status]
  verbs: [get, update, patch]
# To own objects that hold up a job's deletion, where the cluster asks for that.
- apiGroups: [sternpost.dev]
  resources: [trainingjobs/finalizers]
  verbs: [update]
- apiGroups: [sternpost.dev]
  resources: [attempts]
  verbs: [get, list, watch, create, update]
# The operator reads them. It creates none, but grants that to each job's account, and `report`, which the admission policy
# asks for, for that job alone.
- apiGroups: [sternpost.dev]
  resources: [anomalies]
  verbs: [get, list, watch, create, patch, report]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
# Applied for each attempt, never read; the garbage collector removes them with the job.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, patch]
# A job's token: made once, read by its name, never listed and never changed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
