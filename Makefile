# `make demo` and `make test` each work as the first command in a fresh clone. They share one environment.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where CPU builds of torch are; other indexes have only CUDA builds for Linux. Empty: do not ask there.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
DEMO_STORE ?= runs/demo
# Fewer days than the demo has by itself, where only its working is looked at.
DEMO_DAYS ?=
PYTEST_WORKERS ?= 2

.PHONY: help demo test lint format compile golden study-demo study-training study-training-journey study-gate study-ids study-vectors study-pretraining study-join bench-check bench-join bench-evaluate bench-train bench-train-peers bench-pretrain bench-store bench-serve bench-serve-failures bench-gpu soak soak-serve images sbom k8s-check lock clean
.DEFAULT_GOAL := help

help:  ## say what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

demo: $(VENV)/.runtime  ## real logs to a published, gated model, in runs/demo; a second call resumes
	@$(BIN)/afterclick demo --store $(DEMO_STORE) $(if $(DEMO_DAYS),--days $(DEMO_DAYS))

test: $(VENV)/.dev  ## all tests, with end-to-end runs of the pipelines
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(VENV)/.runtime  ## the pipelines' YAML for Kubeflow, in build/pipelines
	$(BIN)/afterclick compile

golden: $(VENV)/.runtime  ## rewrite the golden files of the tests, to be reviewed in the diff
	$(BIN)/python -m tests.golden.rewrite

study-demo: $(VENV)/.dev  ## AUC of other settings on the demo's examples, about ten minutes
	@AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.demo_settings $(DEMO_STORE) | grep --line-buffered '^demo_settings'

study-training: $(VENV)/.dev  ## Sparse Optimizer, FAL and MEDA on simulated ids, against the paper; 20 minutes, a second call goes on
	@AFTERCLICK_PROGRESS_SECONDS=0 $(BIN)/python -W ignore -m tests.benchmarks.study_training

study-training-journey: $(VENV)/.dev  ## the same on the demo's examples, seven minutes
	@AFTERCLICK_PROGRESS_SECONDS=0 $(BIN)/python -W ignore -m tests.benchmarks.study_journey $(DEMO_STORE)

study-gate: $(VENV)/.dev  ## how often the gate blesses equal recipes, and better ones, on the demo's users and simulated ones; half an hour or more, a second call goes on
	@OMP_WAIT_POLICY=PASSIVE AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.study_gate | grep --line-buffered '^gate'

study-ids: $(VENV)/.dev  ## ids by hash, by binary code and exact, on the demo's logs and simulated ones, three seeds each; a second call goes on
	@OMP_WAIT_POLICY=PASSIVE AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.study_exact_ids | grep --line-buffered '^study'

study-vectors: $(VENV)/.dev  ## vectors of the demo's product descriptions as features, and what they cost; a second call goes on
	@OMP_WAIT_POLICY=PASSIVE AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.study_vectors | grep --line-buffered '^study'

study-pretraining: build/peers/.installed  ## pretrained tables against drawn ones; SIZE=small two minutes, else seven; a second call goes on
	@PYTHONPATH=build/peers OMP_NUM_THREADS=1 AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.study_pretraining $(if $(filter small,$(SIZE)),simulated_small) 2>/dev/null | grep --line-buffered '^study'

study-join: $(VENV)/.dev  ## the join on ten thousand random small logs against two slower ways of writing it
	AFTERCLICK_RANDOM_LOGS=10000 $(BIN)/python -m pytest -q -n 2 tests/unit/join/test_oracle.py

bench-check: $(VENV)/.dev  ## looking at ten million impressions before a first run: time and peak memory
	@$(BIN)/python -W ignore -m tests.benchmarks.check

bench-join: $(VENV)/.dev  ## the join against DuckDB on 10 million impressions, a day beside its history, statistics and expectations, fifteen minutes
	@mkdir -p build/bench
	@$(BIN)/python -W ignore -m tests.benchmarks.join 2>build/bench/join.log || { tail -20 build/bench/join.log >&2; exit 1; }
	@$(BIN)/python -W ignore -m tests.benchmarks.join_daily 2>>build/bench/join.log
	@$(BIN)/python -W ignore -m tests.benchmarks.statistics

bench-evaluate: $(VENV)/.dev  ## judging five million rows: time and peak memory; and what comparing digests adds to reading
	@$(BIN)/python -W ignore -m tests.benchmarks.evaluate

bench-train: $(VENV)/.dev  ## embedding tables and their optimizers on two million rows, and checkpoints of several processes, seven minutes
	@$(BIN)/python -W ignore -m tests.benchmarks.train 2>/dev/null
	@AFTERCLICK_PROGRESS_SECONDS=100000 $(BIN)/python -W ignore -m tests.benchmarks.train_loader 2>/dev/null | grep '^train'
	@$(BIN)/python -W ignore -m tests.benchmarks.train_checkpoints 2>/dev/null
	@$(BIN)/python -W ignore -m tests.benchmarks.vocabulary

bench-train-peers: build/peers/.installed  ## whole steps against three other libraries, and peak memory, about eight minutes
	@mkdir -p build/bench
	@TQDM_DISABLE=1 PYTHONPATH=build/peers $(BIN)/python -W ignore -m tests.benchmarks.train_peers 2>build/bench/train_peers.log | grep '^train' || { tail -20 build/bench/train_peers.log >&2; exit 1; }
	@$(BIN)/python -W ignore -m tests.benchmarks.train_memory

bench-pretrain: build/peers/.installed  ## pretraining's step beside memory, and link prediction beside PyKEEN, about fifteen minutes
	@mkdir -p build/bench
	@TQDM_DISABLE=1 OMP_NUM_THREADS=1 PYTHONPATH=build/peers $(BIN)/python -W ignore -m tests.benchmarks.pretrain 2>build/bench/pretrain.log || { tail -20 build/bench/pretrain.log >&2; exit 1; }

bench-store: $(VENV)/.dev  ## requests that a store on S3 gets from a batch and two daily runs, two minutes
	@$(BIN)/python -W ignore -m tests.benchmarks.store_requests 2>/dev/null

bench-serve: $(VENV)/.dev  ## the two serving tiers against float16 tables and one process, throughput in time, TLS, and rollouts; needs the demo's store, 23 minutes
	@mkdir -p build/bench
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -W ignore -m tests.benchmarks.serve $(DEMO_STORE) 2>build/bench/serve.log || { tail -5 build/bench/serve.log >&2; exit 1; }

bench-serve-failures: $(VENV)/.dev  ## requests lost when servers stop or are killed, and how long a bad version answers; needs the demo's store, four minutes
	@mkdir -p build/bench
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -W ignore -m tests.benchmarks.serve_failures $(DEMO_STORE) 2>build/bench/serve_failures.log || { tail -5 build/bench/serve_failures.log >&2; exit 1; }

images:  ## the container images, with docker or buildah; infra/docker/build.sh has the settings
	infra/docker/build.sh

sbom: images  ## what is in each image, as CycloneDX, in build/images
	@ls build/images/*.cdx.json

k8s-check: $(VENV)/.dev  ## render and check every overlay and alarm; with KUBECONFIG, ask that cluster, too
	$(BIN)/python -m pytest -q tests/k8s/test_manifests.py tests/k8s/test_serving_manifests.py tests/k8s/test_alarms.py

soak: $(VENV)/.dev  ## sixty daily runs with kills, late deliveries, a full disk and a diverging arm; ten minutes
	@mkdir -p build
	@AFTERCLICK_PROGRESS_SECONDS=1000 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -W ignore -m tests.benchmarks.soak build/soak

soak-serve: $(VENV)/.dev  ## fifty versions rolled out under load: requests lost, memory, handles; needs the demo's store, ten minutes; SOAK_ARGS='--rollouts 6 --minutes 1' is shorter
	@mkdir -p build/bench
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -W ignore -m tests.benchmarks.serve_soak $(DEMO_STORE) $(SOAK_ARGS) 2>build/bench/soak_serve.log || { grep '^error' build/bench/soak_serve.log || tail -5 build/bench/soak_serve.log; exit 1; } >&2

bench-gpu: $(VENV)/.dev  ## the tests and the embedding benchmark that need a GPU, on a machine with requirements/gpu.lock
	$(BIN)/python -m pytest -q tests/gpu
	@$(BIN)/python -W ignore -m tests.benchmarks.train_gpu

lock:  ## resolve requirements/*.lock again
	@TORCH_CPU_INDEX="$(TORCH_CPU_INDEX)" requirements/lock.sh

clean:  ## delete the environment and the demo's files
	rm -rf $(VENV) build $(DEMO_STORE)

$(VENV)/.runtime: requirements/cpu.lock requirements/install_cpu.sh pyproject.toml
	@requirements/make_venv.sh "$(PYTHON)" $(VENV)
	@echo "installing the pinned packages of requirements/cpu.lock"
	@TORCH_CPU_INDEX="$(TORCH_CPU_INDEX)" requirements/install_cpu.sh $(BIN)/python
	@$(PIP) --no-build-isolation --editable .
	@touch $@

build/peers/.installed: $(VENV)/.dev requirements/peers.txt
	@echo "installing the libraries of requirements/peers.txt in build/peers"
	@$(PIP) --upgrade --target build/peers -r requirements/peers.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@echo "installing the test tools of requirements/dev.lock"
	@$(PIP) -r requirements/dev.lock
	@touch $@
