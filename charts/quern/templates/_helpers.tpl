{{/* The name of everything this release makes: the release's name, with the chart's unless it says so already. */}}
{{- define "quern.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "quern.operatorName" -}}
{{ include "quern.fullname" . }}-operator
{{- end -}}

{{- define "quern.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "quern.operatorName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must name an existing one when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* "name:tag" of an image: (list . "serve"). */}}
{{- define "quern.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.image (index . 1) -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}

{{- define "quern.selectorLabels" -}}
app.kubernetes.io/name: quern-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quern.labels" -}}
{{ include "quern.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: quern
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What the operator may do with endpoints and what it makes for them; the same rules in a Role or a ClusterRole. */}}
{{- define "quern.rules" -}}
# The endpoints: read and watched; the finalizer is put on and taken off with a patch.
- apiGroups: [serving.quern.dev]
  resources: [inferenceendpoints]
  verbs: [list, watch, patch]
# Conditions, replicas, the last decision.
- apiGroups: [serving.quern.dev]
  resources: [inferenceendpoints/status]
  verbs: [patch]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [serving.quern.dev]
  resources: [inferenceendpoints/finalizers]
  verbs: [update]
# One Deployment per hardware variant. Server-side apply is a patch, and a create where there is nothing yet; get tells
# whose the object is that has the name already.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Which pods to scrape, and why one does not start.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# What happened, for `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
