#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The example of a systemd service: systemd understands it, and kvm_vmm has the options that it uses.

Usage: service_test.py KVM_VMM kvm_vmm@.service
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM, UNIT = sys.argv[1:3]
del sys.argv[1:]
TEXT = pathlib.Path(UNIT).read_text(encoding="utf-8")


class ServiceTest(unittest.TestCase):
    def test_kvm_vmm_has_its_options_and_exit_codes(self):
        manual = subprocess.run([PROGRAM, "--help"], check=True, capture_output=True, text=True).stdout
        options = re.findall(r"--[a-z-]+", " ".join(re.findall(r"^ExecStart=.*|OPTIONS=.*", TEXT, re.MULTILINE)))
        self.assertGreater(len(options), 3)
        for option in options:
            self.assertIn(f"  {option} ", manual)
        codes = re.findall(r"^(?:SuccessExitStatus|RestartPreventExitStatus)=(.*)$", TEXT, re.MULTILINE)
        self.assertEqual(len(codes), 2)
        for code in " ".join(codes).split():
            self.assertRegex(manual, rf"(?m)^ +{code}  ")

    @unittest.skipIf(shutil.which("systemd-analyze") is None, "systemd is not installed")
    def test_systemd_understands_it(self):
        with tempfile.TemporaryDirectory() as directory:
            unit = pathlib.Path(directory, "kvm_vmm@test.service")
            unit.write_text(TEXT.replace("/usr/bin/kvm_vmm", str(pathlib.Path(PROGRAM).resolve())), encoding="utf-8")
            done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
            # It also reports on units of this computer.
            about = [line for line in done.stderr.splitlines() if "kvm_vmm@" in line]
            self.assertEqual(about, [])


if __name__ == "__main__":
    unittest.main()
