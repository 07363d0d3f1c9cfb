import os

# A process has to choose Keras's backend before it imports Keras; see each_backend.py.
collect_ignore = [] if "DOWNSLOPE_KERAS_CHECKS" in os.environ else ["backend"]
