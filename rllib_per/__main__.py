# SPDX-License-Identifier: MIT
"""`python -m rllib_per`, which Python starts with the current folder before all others."""

# No installed package is imported before this.
from rllib_per.experiments.import_path import leave_current_folder

leave_current_folder()

from rllib_per.cli import main  # noqa: E402

main()
