"""Before anything imports vsrv.kernels: take them from the private copy that production uses, with its cache of compiled code."""

from vsrv import boot

boot.prepare_kernels()
