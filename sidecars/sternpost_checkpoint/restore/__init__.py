"""Reading generations back, from wherever they are: blocks, delta chains, companions, every byte verified."""
