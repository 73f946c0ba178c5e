# SPDX-License-Identifier: MIT
"""Every setting once: default, bounds, unit and sentence. Knows neither Ray nor torch.

`rules` says which values there are, `section` what a group of settings is. The groups are `replay`,
`training`, `objectives`, `network`, `runners` and `learners`; `algorithm` puts them together.
`refused` knows settings of RLlib's that are none here, and what to do instead.
"""
