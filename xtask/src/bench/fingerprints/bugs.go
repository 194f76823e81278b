// Ten bugs: `bugs NUMBER main|thread`. Functions are kept apart as large ones are.
package main

import (
	"os"
	"runtime/debug"
	"sort"
	"strconv"
)

type user struct {
	name string
	boss *user
}
type table struct{ rows []int }
type loader interface{ load(n int) int }

var sink int

//go:noinline
func (t *table) row(n int) int { r := t.rows[n]; note(1); return r }

//go:noinline
func (t *table) load(n int) int { r := t.rows[n:n+5][0]; note(2); return r }

//go:noinline
func bossName(u *user) int { r := len(u.boss.name); note(3); return r }

//go:noinline
func showUser() { sink = bossName(&user{}); note(4) }

//go:noinline
func mailUser() { sink = bossName(&user{name: "x"}); note(5) }

//go:noinline
func readRow() { t := &table{}; sink = t.row(sink + 3); note(6) }

//go:noinline
func loadRow() { var l loader = &table{}; sink = l.load(sink + 4); note(7) }

//go:noinline
func setPrice() { var m map[string]int; m["a"] = sink; note(8) }

//go:noinline
func convert(v interface{}) int { r := v.(int); note(9); return r }

//go:noinline
func readConfig() { sink = convert("text"); note(10) }

//go:noinline
func divide(a, b int) int { r := a / b; note(11); return r }

//go:noinline
func average() { sink = divide(3, sink); note(12) }

//go:noinline
func sortUsers() {
	list := []*user{nil, nil}
	sort.Slice(list, func(a, b int) bool { return list[a].name < list[b].name })
	note(13)
}

//go:noinline
func closeTwice() { c := make(chan int); close(c); close(c); note(14) }

//go:noinline
func clone() { panic("clone") }

//go:noinline
func copyUser() { clone(); note(15) }

//go:noinline
func dispatch(n int) {
	bugs := []func(){showUser, mailUser, readRow, loadRow, setPrice, readConfig, average, sortUsers, closeTwice, copyUser}
	bugs[n]()
	note(16)
}

func main() {
	debug.SetTraceback("crash")
	n, _ := strconv.Atoi(os.Args[1])
	if len(os.Args) > 2 && os.Args[2] == "thread" {
		done := make(chan bool)
		go func() { dispatch(n); done <- true }()
		<-done
	} else {
		dispatch(n)
	}
}
