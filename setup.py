"""What pyproject.toml cannot say: found packages, and two more from folders at the top level."""

from setuptools import find_namespace_packages, setup

# package: folder. Users and docs name the folders; the wheel carries them inside eqplugin
SHIPPED = {"eqplugin.configs": "configs", "eqplugin.examples.data": "examples/data"}

packages = find_namespace_packages(include=["eqplugin", "eqplugin.*"], exclude=["*.__pycache__"])
for package, folder in SHIPPED.items():
    packages += [package, *(f"{package}.{name}" for name in find_namespace_packages(folder))]

setup(packages=packages, package_dir=SHIPPED)
