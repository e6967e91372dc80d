{{/* Names and small values. Each takes the root context. */}}

{{- define "outrider.tag" -}}
{{ .Values.global.tag | default .Chart.AppVersion }}
{{- end }}

{{/* dict root name: an image; a name with a slash is a whole reference. */}}
{{- define "outrider.image" -}}
{{- if contains "/" .name -}}
{{ .name }}
{{- else -}}
{{ printf "%s/%s:%s" .root.Values.global.registry .name (include "outrider.tag" .root) }}
{{- end -}}
{{- end }}

{{- define "outrider.trustDomain" -}}
{{ .Values.global.mtls.controlPlaneTrustDomain | default "cluster.local" }}
{{- end }}

{{- define "outrider.sentryAddress" -}}
{{ .Values.global.mtls.sentryAddress | default (printf "dapr-sentry.%s.svc.cluster.local:443" .Release.Namespace) }}
{{- end }}

{{/* dict root component: labels of every object. Their values are templates. */}}
{{- define "outrider.labels" -}}
{{- $root := .root -}}
{{- $global := merge (dict "tag" (include "outrider.tag" $root)) $root.Values.global -}}
{{- $context := dict
  "Values" (dict "component" .component "global" $global)
  "Chart" $root.Chart "Release" $root.Release "Capabilities" $root.Capabilities "Template" $root.Template -}}
{{- $labels := dict -}}
{{- range $name, $value := $global.k8sLabels -}}
{{- $_ := set $labels $name (tpl (toString $value) $context) -}}
{{- end -}}
{{ toYaml $labels }}
{{- end }}

{{/* What scrapers look for; nothing when metrics are off. */}}
{{- define "outrider.scrape" -}}
{{- if .Values.global.prometheus.enabled -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .Values.global.prometheus.port | quote }}
prometheus.io/path: "/"
{{- end }}
{{- end }}

{{/* dict root annotations: annotations of a Service. */}}
{{- define "outrider.serviceAnnotations" -}}
{{- $scrape := include "outrider.scrape" .root -}}
{{- if or $scrape .annotations -}}
annotations:
  {{- with $scrape }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "outrider.metricsFlags" -}}
{{- if .Values.global.prometheus.enabled }}
- --enable-metrics
- --metrics-port
- {{ .Values.global.prometheus.port | quote }}
{{- else }}
- --enable-metrics=false
{{- end }}
{{- end }}
