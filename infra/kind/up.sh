#!/usr/bin/env bash
# A laptop's cluster with Docker: kind, Kubeflow Pipelines and Trainer, the images, the overlay `local`, and a first run on
# simulated logs. Needs docker, kind, kubectl and this repository's environment (`make demo` makes it). Safe to run again.
#
# Not run where this was written, which has no Docker engine; docs/cluster.md says what was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
KFP_VERSION=${KFP_VERSION:-2.17.0}
TRAINER_VERSION=${TRAINER_VERSION:-v2.3.0}
name=afterclick
store=s3://mlpipeline/afterclick

for program in docker kind kubectl .venv/bin/afterclick; do
  command -v "$program" >/dev/null || { echo "error: $program is needed" >&2; exit 1; }
done
kind get clusters 2>/dev/null | grep -qx "$name" || kind create cluster --name "$name"
kubectl config use-context "kind-$name" >/dev/null

kustomize=github.com/kubeflow/pipelines/manifests/kustomize
kubectl apply -k "$kustomize/cluster-scoped-resources?ref=$KFP_VERSION"
kubectl wait --for condition=established --timeout=60s crd/applications.app.k8s.io
kubectl apply -k "$kustomize/env/platform-agnostic?ref=$KFP_VERSION"
kubectl apply --server-side -k "github.com/kubeflow/trainer/manifests/overlays/manager?ref=$TRAINER_VERSION"
kubectl -n kubeflow wait --for=condition=Available --timeout=600s deployment/ml-pipeline deployment/workflow-controller

PREFIX=localhost/afterclick LOCK=cpu.lock infra/docker/build.sh beam train
for image in beam train; do kind load docker-image --name "$name" "localhost/afterclick/$image:0.1.0"; done

# The keys of the store that comes with Kubeflow Pipelines, copied within the cluster.
key() { kubectl -n kubeflow get secret mlpipeline-minio-artifact -o "jsonpath={.data.$1}" | base64 --decode; }
kubectl -n kubeflow create secret generic afterclick-store --dry-run=client -o yaml \
  --from-literal=AWS_ACCESS_KEY_ID="$(key accesskey)" --from-literal=AWS_SECRET_ACCESS_KEY="$(key secretkey)" \
  --from-literal=AWS_ENDPOINT_URL=http://seaweedfs.kubeflow:9000 | kubectl apply -f - >/dev/null
kubectl -n kubeflow delete job afterclick-deploy --ignore-not-found
kubectl apply -k k8s/overlays/local
kubectl -n kubeflow wait --for=condition=Complete --timeout=300s job/afterclick-deploy
kubectl -n kubeflow logs job/afterclick-deploy
echo "see it: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then http://localhost:8080"
echo "what it did: afterclick show --store $store, with AWS_ENDPOINT_URL and the keys of the Secret afterclick-store"
