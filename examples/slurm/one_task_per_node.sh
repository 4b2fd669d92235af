#!/usr/bin/env bash
# jaxrefine on several nodes: one task on each, which uses all GPUs of its node.
#
#   sbatch one_task_per_node.sh config.yaml
#
# The nodes must share the file system that holds the inputs and the output. Interrupted, by
# whatever: submit it again, and it continues.

#SBATCH --job-name=jaxrefine
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
# Two minutes before the time is up: each task finishes its batch and saves.
#SBATCH --signal=TERM@120

set -euo pipefail

# The tasks find one another by what srun tells them. Should one die, the others notice
# within a minute, save and stop by themselves; SLURM need not kill them (that is the 0).
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m jaxrefine "${1:-config.yaml}"
