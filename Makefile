# `make book` and `make test` set up what they need; nothing else has to be installed but Python 3.11 to 3.13 and make.
PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake -s notebooks/Snakefile --cores 2 --quiet host progress rules reason --rerun-triggers mtime params --rerun-incomplete
# What was killed outright leaves its lock behind: it goes where no other run of the graph is at work.
UNLOCK := @if command -v pgrep > /dev/null && ! pgrep -f "[S]nakefile --cores" > /dev/null; then rm -rf .snakemake/locks; fi

.PHONY: book pdf test lab sweeps reference bundle tuned lock clean

book: .venv/ready  ## run every notebook at toy scale and build the site
	@$(BIN)/python book/vendor.py
	$(UNLOCK)
	$(SNAKEMAKE) --scheduler greedy --prioritize book/notebooks/07_best_of_n.ipynb --config scale=toy
	$(BIN)/python book/build.py

pdf: .venv/ready  ## the built site as one PDF, by the Chromium that the browser tests use
	@$(BIN)/python book/paper.py

test: .venv/ready  ## lint, unit tests, notebooks against their references, strict build, browser
	@$(BIN)/python book/vendor.py
	$(BIN)/ruff check
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m pytest -m "not gpu" --numprocesses 3 --dist loadscope

lab: .venv/ready  ## step through the notebooks
	$(BIN)/jupyter lab notebooks

sweeps: .venv/ready        ## run those points of the recorded sweeps that runs/ lacks (hours, resumable; `make sweeps sweep=controls` for some)
	$(UNLOCK)
	$(SNAKEMAKE) --config scale=toy -- book/notebooks/04_reward.ipynb
	$(if $(filter league,$(sweep)),OMP_NUM_THREADS=1 $(BIN)/python -m rlhf_nb.study.league,$(SNAKEMAKE) --keep-going --config scale=toy $(if $(sweep),sweep=$(sweep)) -- sweeps); status=$$?; $(BIN)/python -m rlhf_nb.study.record && exit $$status

reference: .venv/ready     ## make the references that the notebooks are compared with anew
	$(BIN)/python tests/refresh.py

bundle: .venv/ready        ## train the toy model anew (hours on two cores, resumable) and ship it
	mkdir -p runs
	cd notebooks && ../$(BIN)/papermill A1_pretrain.ipynb ../runs/A1_pretrain.ipynb -p scale toy -p retrain True
	rm -rf rlhf_nb/toy/assets && cp -r runs/toy/pretrain/bundle rlhf_nb/toy/assets
	cp -r runs/toy/pretrain/rival rlhf_nb/toy/assets && cp runs/toy/pretrain/manifest.json rlhf_nb/toy/assets/made.json

tuned: .venv/ready         ## ship the tuned model and the reward that `make book` has made
	$(BIN)/python book/ship.py

lock: .venv/ready          ## renew requirements.lock within the ranges of pyproject.toml (`make lock torch=2.14.1` moves PyTorch, too)
	$(BIN)/python book/lock.py $(if $(torch),torch==$(torch))

clean:  ## remove everything that was made, but not your own labels and their journals
	find runs -type f ! -name "people*.sqlite*" -delete 2>/dev/null; find runs -type d -empty -delete 2>/dev/null; true
	rm -rf _build book/notebooks book/generated .snakemake

.venv/ready: requirements.lock pyproject.toml book/vendor.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python book/vendor.py
	$(BIN)/python -c "import datasets, diffusers, ipykernel, matplotlib.pyplot, statsmodels.api, transformers"  # the first import is slow: not in a kernel
	touch $@
