# make all     the chain: prune, finetune, rebuild, compare (CONFIG=... DEVICE=cpu|cuda)
# make prune   one step of it, and what it needs; so do make train, finetune, rebuild and compare
# make student a small student: distilled and pruned while it trains, rebuilt, compared
# make face    face masks on toy faces: base, small student, pruned, compared; a photograph
# make scenes  acoustic scenes on generated sounds: teachers, student, pruned in rounds, fused
# make yolo    detection of generated shapes: teacher, student, pruned, compared; an image
# make test    the tests
# make setup   the virtual environment alone
# make lint    format, lint and types
# make clean   delete what `make all` made (CONFIG=...)

CONFIG ?= config_catanet.yml
DEVICE ?= auto
PYTHON ?= python3
SHELL := /bin/bash

# Both become arguments of a shell's commands; `kdp paths` checks the paths that it prints itself.
# `value` does not expand them: $(shell ...) would run as soon as they are looked at.
HASH := \#
REFUSED := $(findstring $$,$(value CONFIG)$(value DEVICE))
ifeq ($(REFUSED),)
REFUSED := $(strip $(foreach c,; & | < > ( ) { } [ ] * ? ! ~ ^ ` ' " \ % = $(HASH),$(findstring $c,$(CONFIG)$(DEVICE))))
REFUSED += $(findstring :,$(CONFIG)) $(filter-out 2,$(words $(CONFIG) $(DEVICE)))
endif
ifneq ($(strip $(REFUSED)),)
$(error CONFIG and DEVICE may have no spaces and no characters that a shell interprets)
endif

VENV := .venv
KDP := $(VENV)/bin/kdp
READY := $(VENV)/.ready
PATHS := .build/$(subst /,_,$(CONFIG)).mk
CHAIN := prune finetune rebuild compare
PHOTO := 'import skimage.data as d; print(d.__path__[0] + "/astronaut.png")'

.DELETE_ON_ERROR:
.PHONY: all student face scenes yolo train $(CHAIN) setup test lint clean help

all: compare

student:
	$(MAKE) --no-print-directory all CONFIG=student_dynamic.yml

# Every network is small enough to be trained here. The photograph (scikit-image's astronaut) is
# labelled by the pruned network of weights/, which was trained on photographs: the networks trained
# here know tiny grey faces with drawn masks only, and their labels of photographs mean nothing.
face: $(READY)
	$(MAKE) --no-print-directory train CONFIG=face_mask.yml
	$(MAKE) --no-print-directory train CONFIG=face_mask_kd_small.yml
	$(MAKE) --no-print-directory all CONFIG=face_mask_prune.yml
	$(KDP) compare runs/toy_faces/face_mask{,_small,_slim_rebuilt}.pth \
		--config face_mask.yml --device $(DEVICE) -o runs/toy_faces/compare.md
	$(KDP) infer weights/face_mask_pruned_70.pth --device $(DEVICE) \
		-o runs/toy_faces/labelled "$$($(VENV)/bin/python -c $(PHOTO))"

SCENES := runs/toy_scenes/rep_mobile
scenes: $(READY)
	$(MAKE) --no-print-directory train CONFIG=cp_mobile.yml
	$(MAKE) --no-print-directory train CONFIG=rep_mobile.yml
	$(MAKE) --no-print-directory train CONFIG=rep_mobile_kd.yml
	$(KDP) prune --config prune_schedule.yml --rerun --device $(DEVICE)
	$(KDP) rebuild --config rep_mobile_kd.yml --device $(DEVICE)
	$(KDP) compare $(dir $(SCENES))cp_mobile.pth $(SCENES)_{kd,kd_rebuilt,progressive_rebuilt}.pth \
		--config cp_mobile.yml --device $(DEVICE) -o $(dir $(SCENES))compare.md

# The network is distilled, then pruned and distilled from what it was; so young, it is never sure.
SHAPES := runs/toy_shapes
EXAMPLE := 'import cv2; from kdp.data.toy_shapes import toy_shapes as shapes; \
	cv2.imwrite("$(SHAPES)/example.png", shapes(True)[0].read()[:, :, ::-1])'
yolo: $(READY)
	$(MAKE) --no-print-directory train CONFIG=yolo11_smoke_teacher.yml
	$(MAKE) --no-print-directory train CONFIG=yolo11_smoke.yml
	$(MAKE) --no-print-directory all CONFIG=yolo11_prune.yml
	$(KDP) compare $(SHAPES)/yolo11_{teacher,student,slim_rebuilt}.pth \
		--config yolo11_smoke.yml --device $(DEVICE) -o $(SHAPES)/compare.md
	$(VENV)/bin/python -c $(EXAMPLE)
	$(KDP) infer $(SHAPES)/yolo11_slim_rebuilt.pth --device $(DEVICE) --set detect.confidence=0.08 \
		-o $(SHAPES)/labelled $(SHAPES)/example.png

help:
	@sed -n 's/^# make /make /p' Makefile

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

# TEACHER, MASKS, PRUNED, ... are read off the configuration; CONFIGS are the files it is composed of,
# FUTURE those of them that are dated in the future. Paths that did not change keep their time: Make
# starts over whenever an included file is new, which would never end.
ifneq ($(filter all train $(CHAIN),$(or $(MAKECMDGOALS),all)),)
include $(PATHS)
endif

$(PATHS): $(CONFIGS) $(FUTURE) $(READY)
	@mkdir -p $(@D)
	@$(KDP) paths --config $(CONFIG) > $@.new
	@cmp --silent $@.new $@ && rm $@.new || mv $@.new $@

# A composed file that is gone is no error: the paths are read anew.
$(CONFIGS) $(FUTURE):

train: $(TRAINED)
prune: $(MASKS)
finetune: $(FINETUNED)
rebuild: $(REBUILT)
compare: $(TABLE)

# `prune` writes the masks last: where they are, the pruned network is too.
$(MASKS): $(CONFIGS) $(wildcard $(TEACHER))
	$(KDP) prune --config $(CONFIG) --resume --device $(DEVICE)

# --rerun resumes a checkpoint that fits and replaces what an earlier --rerun wrote, nothing else.
$(FINETUNED): $(MASKS)
	$(KDP) finetune --config $(CONFIG) --rerun --device $(DEVICE)

# Instead of the two above, for a configuration that prunes while it trains.
$(TRAINED): $(CONFIGS) $(wildcard $(TEACHER))
	$(KDP) train --config $(CONFIG) --rerun --device $(DEVICE)

$(REBUILT): $(SOURCE)
	$(KDP) rebuild --config $(CONFIG) --device $(DEVICE)

$(TABLE): $(REBUILT)
	$(KDP) compare $(COMPARED) --config $(CONFIG) --device $(DEVICE) \
		-o $@ -o $(@:.md=.csv) -o $(@:.md=.json) --images $(@D)/images

clean: $(READY)
	$(KDP) clean --config $(CONFIG)
	rm -rf .build
