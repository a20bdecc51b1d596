# Runs the tests that the host chose, one argument a line; all goes to the console too, for whoever watches.
export TASKTRAIL_PROGRAMS=/job/programs TASKTRAIL_RECORDER=/sys/fs/bpf/tasktrail
set -f
IFS='
'
python3 -m pytest -v --tb=short -p no:cacheprovider --junit-xml=/run/results/junit.xml --durations=40 $(cat /job/tests/kernels/inside/chosen) 2>&1 |
  tee /run/results/pytest.txt
