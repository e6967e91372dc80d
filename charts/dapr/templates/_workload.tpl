{{/*
A Deployment or StatefulSet of the control plane. Takes a dict:
  kind               Deployment or StatefulSet
  root, values       contexts of the chart and of the service
  replicas           how many pods
  spread             whether they keep away from each other
  name               of the workload, its label, its container and its Service
  component          role: operator, injector, sentry, placement or scheduler; key of the global lists
  account            ServiceAccount
  program, image     command and image name
  healthz            port of the health page
  args, env, ports   YAML of the container's lists
  volumes, mounts    YAML of what is mounted
  claims             YAML of a StatefulSet's volumeClaimTemplates, or empty
  fsGroup            group of a StatefulSet's volumes, or empty
*/}}
{{- define "outrider.workload" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $global := $root.Values.global -}}
{{- $labels := include "outrider.labels" (dict "root" $root "component" $values.component) -}}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    app: {{ .name }}
    {{- $labels | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ .name }}
  podManagementPolicy: Parallel
  {{- with .claims | trim }}
  volumeClaimTemplates:
    {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  selector:
    matchLabels:
      app: {{ .name }}
  template:
    metadata:
      labels:
        app: {{ .name }}
        {{- $labels | nindent 8 }}
        {{- with $global.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        dapr.io/control-plane: {{ .component }}
        {{- with include "outrider.scrape" $root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.deploymentAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $values.statefulsetAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ .account }}
      {{- with .fsGroup }}
      securityContext:
        fsGroup: {{ . }}
      {{- end }}
      {{- with $global.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- if $values.hostNetwork }}
      hostNetwork: true
      {{- end }}
      {{- with index $global.initContainers .component }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "outrider.image" (dict "root" $root "name" .image) }}
          imagePullPolicy: {{ $global.imagePullPolicy }}
          command: [{{ .program }}]
          args:
            {{- .args | trim | nindent 12 }}
            {{- include "outrider.metricsFlags" $root | trim | nindent 12 }}
            - --log-level
            - {{ $values.logLevel | quote }}
            {{- if $global.logAsJson }}
            - --log-as-json
            {{- end }}
            {{- range $values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            - name: NAMESPACE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.namespace
            {{- with .env | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- range $name, $value := $values.extraEnvVars }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
          ports:
            {{- with .ports | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- if $global.prometheus.enabled }}
            - name: metrics
              containerPort: {{ $global.prometheus.port }}
              protocol: TCP
            {{- end }}
          livenessProbe:
            httpGet:
              path: /healthz
              port: {{ .healthz }}
            {{- toYaml $values.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet:
              path: /healthz
              port: {{ .healthz }}
            {{- toYaml $values.readinessProbe | nindent 12 }}
          {{- with $values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- if eq $global.daprControlPlaneOs "linux" }}
          securityContext:
            {{- if dig "runAsNonRoot" (dig "securityContext" "runAsNonRoot" false $values) $values }}
            runAsNonRoot: true
            {{- else if eq .component "injector" }}
            runAsUser: 1000
            {{- end }}
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
            seccompProfile:
              type: {{ $global.seccompProfile | default "RuntimeDefault" }}
          {{- end }}
          volumeMounts:
            {{- .mounts | trim | nindent 12 }}
            {{- with index $global.extraVolumeMounts .component }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with index $global.extraContainers .component }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- .volumes | trim | nindent 8 }}
        {{- with index $global.extraVolumes .component }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- include "outrider.scheduling" (dict "root" $root "app" .name "spread" .spread "policy" (ternary $global.ha.podAntiAffinityPolicy "" (eq .kind "StatefulSet"))) | nindent 6 }}
{{- end }}

{{/* A Deployment of the control plane: the dict of a workload without kind, replicas, spread, claims and fsGroup. */}}
{{- define "outrider.deployment" -}}
{{- $ha := .root.Values.global.ha -}}
{{- include "outrider.workload" (merge (dict
  "kind" "Deployment" "spread" $ha.enabled "claims" "" "fsGroup" ""
  "replicas" (ternary $ha.replicaCount .values.replicaCount $ha.enabled)) .) }}
{{- end }}

{{/*
dict root app spread policy: where pods may run, and what pulls their images. With `spread` pods keep away from each
other, and with the policy requiredDuringSchedulingIgnoredDuringExecution they must.
*/}}
{{- define "outrider.scheduling" -}}
{{- $global := .root.Values.global -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: kubernetes.io/os
              operator: In
              values: [{{ $global.daprControlPlaneOs }}]
            {{- with $global.daprControlPlaneArch }}
            - key: kubernetes.io/arch
              operator: In
              values: [{{ . }}]
            {{- end }}
  {{- if .spread }}
  podAntiAffinity:
    {{- if eq .policy "requiredDuringSchedulingIgnoredDuringExecution" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: {{ $global.ha.topologyKey }}
        labelSelector:
          matchLabels:
            app: {{ .app }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: {{ $global.ha.topologyKey }}
          labelSelector:
            matchLabels:
              app: {{ .app }}
    {{- end }}
  {{- end }}
{{- with $global.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $global.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $global.imagePullSecrets }}
imagePullSecrets:
  {{- if kindIs "string" . }}
  - name: {{ . }}
  {{- else }}
  {{- range . }}
  - name: {{ kindIs "string" . | ternary . (dig "name" "" (kindIs "string" . | ternary dict .)) }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The trust anchors, and the token that proves to sentry who asks. */}}
{{- define "outrider.identityVolumes" -}}
- name: trust-bundle
  configMap:
    name: dapr-trust-bundle
{{- if .Values.global.mtls.mountSentryVolume }}
- name: dapr-identity-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 600
          audience: spiffe://{{ include "outrider.trustDomain" . }}/ns/{{ .Release.Namespace }}/dapr-sentry
{{- end }}
{{- end }}

{{- define "outrider.identityMounts" -}}
- name: trust-bundle
  mountPath: /var/run/secrets/dapr.io/tls
  readOnly: true
{{- if .Values.global.mtls.mountSentryVolume }}
- name: dapr-identity-token
  mountPath: /var/run/secrets/dapr.io/sentrytoken
  readOnly: true
{{- end }}
{{- end }}

{{/* dict root app name component always: how many pods a drain must leave; without `always` only with global.ha.enabled. */}}
{{- define "outrider.disruption" -}}
{{- $global := .root.Values.global -}}
{{- if or $global.ha.enabled .always -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    app: {{ .app }}
    {{- include "outrider.labels" (dict "root" .root "component" .component) | nindent 4 }}
spec:
  {{- if $global.ha.disruption.minimumAvailable }}
  minAvailable: {{ $global.ha.disruption.minimumAvailable }}
  {{- else }}
  maxUnavailable: {{ $global.ha.disruption.maximumUnavailable }}
  {{- end }}
  selector:
    matchLabels:
      app: {{ .app }}
{{- end }}
{{- end }}

{{/* The identity of a service in Kubernetes mode, and whom it trusts. */}}
{{- define "outrider.identityFlags" -}}
- --tls-enabled
- --trust-domain={{ include "outrider.trustDomain" . }}
- --trust-anchors-file=/var/run/secrets/dapr.io/tls/ca.crt
- --sentry-address={{ include "outrider.sentryAddress" . }}
- --mode=kubernetes
{{- end }}

{{/* dict name field: a variable with a field of the pod. */}}
{{- define "outrider.fieldVariable" -}}
- name: {{ .name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ .field }}
{{- end }}

{{/* dict name class size: a claim of a StatefulSet. */}}
{{- define "outrider.claim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ .name }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .class }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .size }}
{{- end }}

{{/* The metrics port of a Service, where metrics are on. */}}
{{- define "outrider.metricsPort" -}}
{{- if .Values.global.prometheus.enabled -}}
- name: metrics
  protocol: TCP
  port: {{ .Values.global.prometheus.port }}
  targetPort: {{ .Values.global.prometheus.port }}
  appProtocol: http
{{- end }}
{{- end }}
