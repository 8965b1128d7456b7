{{- define "maxhost.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "maxhost.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "maxhost.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "maxhost.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "maxhost.selector" -}}
app.kubernetes.io/name: {{ include "maxhost.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "maxhost.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "maxhost.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: maxhost
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "maxhost.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "maxhost.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* A pod of one role. Takes root, component (the role) and its values. */}}
{{- define "maxhost.pod" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
metadata:
  labels:
    {{- include "maxhost.labels" . | nindent 4 }}
  annotations:
    # A changed configuration is a changed pod.
    checksum/config: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "maxhost.serviceAccount" $root }}
  automountServiceAccountToken: false
  # Services of the namespace would appear as variables MAXHOST_*.
  enableServiceLinks: false
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ .role.terminationGracePeriodSeconds }}
  containers:
    - name: maxhost
      image: "{{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}"
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [maxhost]
      args:
        - run
        - --config=/srv/maxhost/maxhost.toml
        - --log-format=json
        {{- range $values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: MAXHOST_ROLES
          value: {{ .component }}
        - name: MAXHOST_HOST_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: MAXHOST_PASSPHRASE
          valueFrom:
            secretKeyRef:
              name: {{ $values.passphrase.existingSecret }}
              key: passphrase
        {{- with $values.store.existingSecret }}
        - name: MAXHOST_STORE_PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ . }}
              key: password
        {{- end }}
        {{- with $values.ownership.existingSecret }}
        - name: MAXHOST_OWNERSHIP_PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ . }}
              key: password
        {{- end }}
        {{- with $values.broker.existingSecret }}
        - name: MAXHOST_BROKER_PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ . }}
              key: password
        {{- end }}
      ports:
        {{- if eq .component "rpc" }}
        - name: grpc
          containerPort: {{ $values.rpc.port }}
        {{- end }}
        - name: metrics
          containerPort: {{ $values.metrics.port }}
      # The port is served once database, broker and ZooKeeper were reached.
      startupProbe:
        httpGet:
          path: /livez
          port: metrics
        periodSeconds: 2
        failureThreshold: 60
      # Never a part that others depend on too: a restart would mend nothing.
      livenessProbe:
        httpGet:
          path: /livez
          port: metrics
        periodSeconds: 10
        failureThreshold: 6
      # Workers answer clients as long as their database does: without ZooKeeper or broker all would go at once, and who asks them
      # how many Max Nodes are wanted would hear nothing.
      readinessProbe:
        httpGet:
          path: {{ eq .component "rpc" | ternary "/readyz/clients" "/readyz" }}
          port: metrics
        periodSeconds: 5
        timeoutSeconds: 5
      {{- if and (eq .component "rpc") $values.rpc.preStopSleepSeconds }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $values.rpc.preStopSleepSeconds }}
      {{- end }}
      resources:
        {{- toYaml .role.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        - name: work
          mountPath: /srv/maxhost
        - name: config
          mountPath: /srv/maxhost/maxhost.toml
          subPath: maxhost.toml
          readOnly: true
        - name: installation
          mountPath: /srv/maxhost/installation
          readOnly: true
        - name: authorities
          mountPath: /srv/maxhost/authorities
          readOnly: true
        {{- if eq .component "rpc" }}
        - name: tls
          mountPath: /srv/maxhost/tls
          readOnly: true
        - name: users
          mountPath: /srv/maxhost/users
          readOnly: true
        {{- end }}
  volumes:
    # Compiled code and notes of a process. Nothing that has to outlive it.
    - name: work
      emptyDir: {}
    - name: config
      configMap:
        name: {{ include "maxhost.fullname" $root }}
    - name: installation
      persistentVolumeClaim:
        claimName: {{ $values.installation.existingClaim }}
        readOnly: true
    - name: authorities
      secret:
        secretName: {{ $values.authorities.existingSecret }}
    {{- if eq .component "rpc" }}
    - name: tls
      secret:
        secretName: {{ $values.rpc.tls.existingSecret }}
    - name: users
      secret:
        secretName: {{ $values.rpc.users.existingSecret }}
    {{- end }}
  {{- with .role.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .role.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .role.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .role.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
