# make all     the chain: prune, finetune, rebuild, compare (CONFIG=configs/... DEVICE=cpu|cuda)
# make student a small student: distilled and pruned while it trains, rebuilt, compared
# make test    the tests
# make setup   the virtual environment alone
# make lint    format, lint and types
# make clean   what `make all` made

CONFIG ?= configs/config_catanet.yml
DEVICE ?= auto
PYTHON ?= python3
SHELL := /bin/bash

VENV := .venv
KDP := $(VENV)/bin/kdp
READY := $(VENV)/.ready
PATHS := .build/$(subst /,_,$(CONFIG)).mk
CHAIN := prune finetune rebuild compare

.DELETE_ON_ERROR:
.PHONY: all student $(CHAIN) setup test lint clean help

all: compare

student:
	$(MAKE) --no-print-directory all CONFIG=configs/student_dynamic.yml

help:
	@sed -n 's/^# //p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: $(READY)
	$(VENV)/bin/pytest

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# TEACHER, MASKS, PRUNED, ... are read off the configuration.
ifneq ($(filter all clean $(CHAIN),$(or $(MAKECMDGOALS),all)),)
include $(PATHS)
endif

$(PATHS): $(CONFIG) $(READY)
	@mkdir -p $(@D)
	@$(KDP) paths --config $(CONFIG) > $@.new
	@mv $@.new $@

prune: $(MASKS)
finetune: $(FINETUNED)
rebuild: $(REBUILT)
compare: $(TABLE)

# `prune` writes the masks last: where they are, the pruned network is too.
$(MASKS): $(CONFIG) $(wildcard $(TEACHER))
	$(KDP) prune --config $(CONFIG) --resume device=$(DEVICE)

$(FINETUNED): $(MASKS)
	$(KDP) finetune --config $(CONFIG) $(and $(wildcard $(CHECKPOINT)),--resume) device=$(DEVICE)
	@rm -f $(CHECKPOINT)

# Instead of the three above, for a configuration that prunes while it trains.
$(TRAINED): $(CONFIG) $(wildcard $(TEACHER))
	$(KDP) train --config $(CONFIG) $(and $(wildcard $(TRAINING)),--resume) device=$(DEVICE)
	@rm -f $(TRAINING)

$(REBUILT): $(SOURCE)
	$(KDP) rebuild --config $(CONFIG) device=$(DEVICE)

$(TABLE): $(REBUILT)
	$(KDP) compare $(COMPARED) --config $(CONFIG) \
		--device $(DEVICE) --md $@ --csv $(@:.md=.csv) --json $(@:.md=.json) --images $(@D)/images

clean:
	rm -f $(MASKS) $(PRUNED) $(SCORES) $(FINETUNED) $(REBUILT) $(TABLE) $(CHECKPOINT) \
		$(TRAINING) $(SOURCE) $(SOURCE:.pth=_last.pth)
	rm -rf .build
