package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// limitsCommand is `stead packages limits`: it shows what a package may take of
// the machine, and with a flag changes it.
func (t *target) limitsCommand() *cobra.Command {
	var memory string
	var cpus float64
	var weight int
	var pids int64
	var reset bool
	cmd := t.api("limits ID", "Show or set what a package may take of the machine", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		l, err := c.Limits(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		set, changed := l.Set, reset
		if reset {
			set = api.Limits{}
		}
		given := func(flag string) bool {
			yes := cmd.Flags().Changed(flag)
			changed = changed || yes
			return yes
		}
		if given("memory") {
			n, err := parseSize(memory)
			if err != nil {
				return err
			}
			set.Memory = &n
		}
		if given("cpus") {
			set.CPUs = &cpus
		}
		if given("cpu-weight") {
			set.CPUWeight = &weight
		}
		if given("pids") {
			set.PIDs = &pids
		}
		if changed {
			if l, err = c.SetLimits(cmd.Context(), args[0], set); err != nil {
				return err
			}
		}
		return t.print(cmd.OutOrStdout(), l, func(w io.Writer) { drawLimits(w, l) })
	})
	cmd.Flags().StringVar(&memory, "memory", "", "bytes, or with K, M, G: 512M")
	cmd.Flags().Float64Var(&cpus, "cpus", 0, "processors: 1.5 is one and a half")
	cmd.Flags().IntVar(&weight, "cpu-weight", 0, "share while processors are short, 1 to 10000, against 100")
	cmd.Flags().Int64Var(&pids, "pids", 0, "tasks, threads included")
	cmd.Flags().BoolVar(&reset, "reset", false, "forget what was set before")
	return cmd
}

func drawLimits(w io.Writer, l api.PackageLimits) {
	rows := [][]string{{"limit", "in force", "default", "set"}}
	row := func(name string, value func(api.Limits) string) {
		rows = append(rows, []string{name, value(l.Effective), value(l.Default), value(l.Set)})
	}
	row("memory", func(l api.Limits) string {
		if l.Memory == nil {
			return "-"
		}
		return fmt.Sprintf("%d MiB", *l.Memory>>20)
	})
	row("cpus", func(l api.Limits) string { return orDash(l.CPUs) })
	row("cpu-weight", func(l api.Limits) string { return orDash(l.CPUWeight) })
	row("pids", func(l api.Limits) string { return orDash(l.PIDs) })
	table(w, rows...)
}

// orDash is a value, or a dash where there is none.
func orDash[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

// parseSize reads a number of bytes with an optional K, M, G or T, powers of
// 1024.
func parseSize(s string) (int64, error) {
	number, shift := strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(s)), "IB"), 0
	if i := strings.IndexAny(number, "KMGT"); i >= 0 && i == len(number)-1 {
		shift = 10 * (strings.IndexByte("KMGT", number[i]) + 1)
		number = number[:i]
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n <= 0 || n*float64(int64(1)<<shift) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is no size: expected bytes, or a number with K, M, G or T", s)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}
