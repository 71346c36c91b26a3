"""cluster.yaml against Ray's own schema, without a cloud."""

import yaml

from tests.conftest import ROOT

TOKEN = "~/.ray/auth_token"


def test_ray_accepts_cluster_yaml():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


def test_every_node_gets_the_token_and_starts_with_it():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert config["file_mounts"][TOKEN] == TOKEN
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in config[commands] if " start " in line]
        assert "RAY_AUTH_MODE=token" in start
