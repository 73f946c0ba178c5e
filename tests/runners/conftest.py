# SPDX-License-Identifier: MIT
import torch

# Networks as small as these lose by threads, above all where several tests share a machine.
torch.set_num_threads(1)
