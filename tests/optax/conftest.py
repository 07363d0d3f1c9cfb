import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("jax") and importlib.util.find_spec("optax") else ["test_*.py"]
