# make run    the capture server, with homer.cfg (make run CFG=my.cfg ARGS="-A DO_IPV6")
# make test   everything that must hold: ruff, mypy, pytest in two processes
# make bench  microseconds a packet, stage by stage
# make docs   the manual as a site, in site/; docs/ can be read as it is
#
# Each of them first makes .venv and installs homerd into it; once that is done no network is needed
# until pyproject.toml changes.  The installation is editable: `git pull` is enough for new code.

CFG     ?= homer.cfg
PYTHONS  = python3.13 python3.12 python3.11 python3
VENV     = .venv/bin/python

.PHONY: run test bench docs python install install-test install-docs clean

run: install
	@exec $(VENV) -m homerd run -f "$(CFG)" $(ARGS)

bench: install
	@exec $(VENV) -m homerd bench -f "$(CFG)" $(ARGS)

docs: install-docs
	$(VENV) -m homerd.manual
	NO_MKDOCS_2_WARNING=1 $(VENV) -m mkdocs build --quiet

test: install-test
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy --strict homerd
	$(VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# the Python that .venv is made with; PYTHON=/path/to/python3 chooses another one
python:
	@for python in $(PYTHON) $(PYTHONS); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then echo "$$python"; exit 0; fi; \
	    without="$$python"; \
	done; \
	if [ -n "$$without" ]; then \
	    echo "homerd: $$without cannot make a virtual environment; on Debian and Ubuntu:" >&2; \
	    echo "    apt-get install python3-venv" >&2; \
	else \
	    echo "homerd: Python 3.11 or newer is needed, none of these is: $(PYTHON) $(PYTHONS)" >&2; \
	fi; \
	exit 1

install:
	@$(call install,.,.venv/installed)

install-test:
	@$(call install,.[test],.venv/installed-test)

install-docs:
	@$(call install,.[docs],.venv/installed-docs)

clean:
	rm -rf .venv build dist site *.egg-info

# $(call install,WHAT,MARK): nothing to do when .venv works and MARK says that it was made here, from
# this pyproject.toml.  A changed file time alone (git switches branches) installs nothing.  What
# `make test` installs is enough for `make run`.  The last two lines spare the first start 0.7 s, and
# every start of a user who may not write here.
define install
	set -e; \
	mark() { pwd; cat pyproject.toml; }; \
	$(VENV) -c '' 2>/dev/null && mark | cmp -s - $(2) && exit 0; \
	if ! $(VENV) -c '' 2>/dev/null || [ "$$(head -n 1 .venv/place 2>/dev/null)" != "$$PWD" ]; then \
	    python=$$($(MAKE) -s --no-print-directory python); \
	    echo "Making .venv with $$python"; \
	    rm -rf .venv; \
	    "$$python" -m venv .venv; \
	    pwd > .venv/place; \
	fi; \
	echo "Installing $(1) into .venv"; \
	$(VENV) -m pip install --quiet --disable-pip-version-check --editable '$(1)' || { \
	    echo "homerd: pip could not install; the first time it needs the network" >&2; exit 1; }; \
	$(VENV) -m compileall -q homerd plugins; \
	PYTHONDONTWRITEBYTECODE= $(VENV) -m homerd check -f examples/minimal.cfg >/dev/null; \
	mark | tee .venv/installed > $(2)
endef
