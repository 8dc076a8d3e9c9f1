"""The functions of `import metarestore`, which are imported when they are first used."""
