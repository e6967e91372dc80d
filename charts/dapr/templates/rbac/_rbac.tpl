{{/*
A role and its binding to an account of the release. Takes a dict:
  root      context of the chart
  name      of role and binding
  account   ServiceAccount
  cluster   ClusterRole rather than Role
  rules     YAML
*/}}
{{- define "outrider.role" -}}
{{- $labels := include "outrider.labels" (dict "root" .root "component" "rbac") -}}
{{- $kind := ternary "ClusterRole" "Role" .cluster -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ .name }}
  {{- if not .cluster }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- .rules | trim | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ .name }}
  {{- if not .cluster }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* dict root name values: a ServiceAccount. */}}
{{- define "outrider.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "outrider.labels" (dict "root" .root "component" "rbac") | nindent 4 }}
  {{- with .values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* On a first install the ConfigMap has the trust anchors long before the kubelet renews what it mounted. */}}
{{- define "outrider.bundleReader" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [dapr-trust-bundle]
  verbs: [get]
{{- end }}
