{{/* Name of the release's objects; those of a component append its name. */}}
{{- define "sternpost.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select a component's Pods; they never change. Takes (list $ "component"). */}}
{{- define "sternpost.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: sternpost
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of a component's objects. Takes (list $ "component"). */}}
{{- define "sternpost.labels" -}}
{{- $ := index . 0 -}}
{{ include "sternpost.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sternpost
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* One of Sternpost's own images. Takes (list $ image). */}}
{{- define "sternpost.image" -}}
{{- $ := index . 0 -}}
{{- $name := printf "%s:%s" (index . 1).repository ($.Values.image.tag | default $.Chart.AppVersion) -}}
{{- if $.Values.image.registry }}{{ trimSuffix "/" $.Values.image.registry }}/{{ end }}{{ $name }}
{{- end -}}

{{/* Beginning of the spec of every Pod: who it is, and where it may run. Takes (list $ "component" values). */}}
{{- define "sternpost.pod" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- with $.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $.Values.podSecurityContext | nindent 2 }}
enableServiceLinks: false
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
{{- $own := dict "labelSelector" (dict "matchLabels" (include "sternpost.selector" (list $ $component) | fromYaml)) }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml (merge (deepCopy .) $own) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Security context of every container: the restricted Pod Security Standard, and a root file system that is read-only. */}}
{{- define "sternpost.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Secret with the password of Redis, and the key in it; empty where there is none. */}}
{{- define "sternpost.redisSecret" -}}
{{- if .Values.redis.enabled -}}
{{- .Values.redis.existingSecret | default (printf "%s-redis" (include "sternpost.fullname" .)) -}}
{{- else -}}
{{- .Values.redis.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Where Redis is. */}}
{{- define "sternpost.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "sternpost.fullname" . }}-redis:6379/0
{{- else -}}
{{- required "redis.external.url: the memory service needs a Redis; set it, or redis.enabled=true" .Values.redis.external.url -}}
{{- end -}}
{{- end -}}

{{/* User name of a service account of this release. Takes (list $ "component"). */}}
{{- define "sternpost.user" -}}
{{- $ := index . 0 -}}
system:serviceaccount:{{ $.Release.Namespace }}:{{ include "sternpost.fullname" $ }}-{{ index . 1 }}
{{- end -}}

{{/* Peers of a NetworkPolicy that Prometheus may be at. */}}
{{- define "sternpost.scrapers" -}}
{{- if .Values.metrics.namespaces -}}
{{- range .Values.metrics.namespaces }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- else }}
- namespaceSelector: {}
{{- end }}
{{- end -}}
