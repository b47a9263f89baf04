#!/usr/bin/env python3
"""Lists the checks that were skipped with their reasons and prints one closing line over all ctest runs.

    test_summary.py --max-skips N [--also-failed CHECK] DIR      DIR holds <label>.xml (ctest --output-junit) and <label>.log (LastTest.log)
"""
import argparse
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

PYTEST = re.compile(r"^SKIPPED \[(\d+)\] (.*)$", re.M)
GTEST_REASON = re.compile(r"^(\S+:\d+: Skipped)\n(.*)$", re.M)
GTEST = re.compile(r"^\[  SKIPPED \] (\S+) \(\d+ ms\)$", re.M)


def skips(log):
    for count, reason in PYTEST.findall(log):
        yield int(count), reason
    reasons = [reason for _, reason in GTEST_REASON.findall(log)]
    for number, name in enumerate(GTEST.findall(log)):
        yield 1, f"{name}: {reasons[number] if number < len(reasons) else 'no reason given'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--max-skips", type=int, required=True)
    parser.add_argument("--also-failed", action="append", default=[], metavar="CHECK", help="a check outside ctest")
    args = parser.parse_args()

    skipped = 0
    for log in sorted(args.directory.glob("*.log")):
        for count, reason in skips(log.read_text(errors="replace")):
            skipped += count
            print(f"skipped: {count} × {reason}" if count > 1 else f"skipped: {reason}")
    total, bad, seconds = len(args.also_failed), list(args.also_failed), 0.0
    for report in sorted(args.directory.glob("*.xml")):
        for case in xml.parse(report).getroot().iter("testcase"):
            total += 1
            seconds += float(case.get("time", 0))
            if case.get("status") != "run":
                bad.append(case.get("name"))
    if bad:
        print("failed: " + ", ".join(bad))
    if total == 0:
        print("No tests were found!!!")
    if skipped > args.max_skips:
        print(f"failed: {skipped} checks skipped, {args.max_skips} allowed")
    percent = 100 * (total - len(bad)) // total if total else 0
    print(f"{percent}% tests passed, {len(bad)} tests failed out of {total}; {skipped} checks skipped; "
          f"{seconds:.0f} s of test time")
    return 1 if bad or total == 0 or skipped > args.max_skips else 0


if __name__ == "__main__":
    sys.exit(main())
