# SPDX-License-Identifier: MIT
"""What an experiment needs of a machine or a cluster, looked at before it is missed."""

from rllib_per.experiments.doctor.cluster_facts import ANSWER_S
from rllib_per.experiments.doctor.examination import examine
from rllib_per.experiments.doctor.finding import Finding, Status, exit_code
from rllib_per.experiments.doctor.report import as_json, as_table

__all__ = ["ANSWER_S", "Finding", "Status", "as_json", "as_table", "examine", "exit_code"]
