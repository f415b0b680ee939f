"""Whole transfers of a language model: conversion, stages, evaluation and report."""

from .recipe import Recipe, Stage, read_recipe
from .run import transfer_lm

__all__ = ['Recipe', 'Stage', 'read_recipe', 'transfer_lm']
