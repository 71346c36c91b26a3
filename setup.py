"""What pyproject.toml cannot say: configs/ is installed as maskcls/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["maskcls*", "ray_jobs*"]), "maskcls.configs"],
    package_dir={"maskcls.configs": "configs"},
    package_data={
        "maskcls.configs": ["*.yaml", "tasks/*.yaml", "cluster/*.yaml"],
        "maskcls.data": ["networks/*"],
        "maskcls.reports": ["templates/*"],
        "ray_jobs.serving": ["page/*"],
    },
)
