#!/usr/bin/env bash
# jaxrefine on several nodes: one task for each GPU, wherever SLURM finds them.
#
#   sbatch one_task_per_gpu.sh config.yaml
#
# Micrographs are dealt to tasks, so that this needs no fewer micrographs than GPUs; with few
# micrographs of many particles each, take one_task_per_node.sh.

#SBATCH --job-name=jaxrefine
#SBATCH --ntasks=16
# Each task sees its own GPU alone. (Where a site does not bind GPUs to tasks, each task of a
# node sees all of them and takes its share.)
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
# Two minutes before the time is up: each task finishes its batch and saves.
#SBATCH --signal=TERM@120

set -euo pipefail

# Should a task die, the others notice within a minute, save and stop by themselves; SLURM
# need not kill them (that is the 0).
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m jaxrefine "${1:-config.yaml}"
