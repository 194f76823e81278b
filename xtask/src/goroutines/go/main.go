// A program that ends in the way its argument names, with goroutines in every state.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

type failure struct{ code int }

func (f *failure) Error() string { return fmt.Sprintf("failure %d", f.code) }

type shown struct{ code int }

func (s shown) String() string { return fmt.Sprintf("shown %d", s.code) }

type text string
type number int

var mutex sync.Mutex

func faultInAssembly()

//go:noinline
func element(list []int, at int) int { return list[at] }

func inlined(list []int, at int) int { return element(list, at) + 1 }

func receive(c chan int) { <-c }

func choose(a, b chan int) {
	select {
	case <-a:
	case b <- 1:
	}
}

func generic[T any](value T, f func(T)) { f(value) }

func spawn() {
	c := make(chan int)
	for i := 0; i < 5; i++ {
		go receive(c)
	}
	go choose(make(chan int), make(chan int))
	go func() { mutex.Lock() }()
	go func() { time.Sleep(time.Hour) }()
	go func() { runtime.LockOSThread(); <-c }()
	go generic(3, func(int) { var group sync.WaitGroup; group.Add(1); group.Wait() })
	go pprof.Do(context.Background(), pprof.Labels("key", "value"), func(context.Context) { <-c })
	go func() {
		for {
		}
	}()
	reader, _, _ := os.Pipe()
	var pipe [2]int
	syscall.Pipe(pipe[:])
	go func() { var b [1]byte; syscall.Read(pipe[0], b[:]) }()
	go func() { var b [1]byte; reader.Read(b[:]) }()
	time.Sleep(200 * time.Millisecond)
}

func recurse(depth int) int { return recurse(depth+1) + 1 }

func main() {
	what := os.Args[1]
	if what == "deadlock" {
		<-make(chan int)
	}
	mutex.Lock()
	spawn()
	switch what {
	case "index":
		inlined([]int{1}, 5)
	case "slice":
		list := make([]int, len(os.Args))
		fmt.Println(list[3:len(os.Args)])
	case "error":
		panic(&failure{7})
	case "stringer":
		panic(shown{8})
	case "wrapped":
		panic(fmt.Errorf("wrapped: %w", errors.New("inner")))
	case "string":
		panic("plain text")
	case "lines":
		panic("first line\nsecond line")
	case "custom":
		panic(text("custom"))
	case "number":
		panic(number(42))
	case "float":
		panic(1.5)
	case "struct":
		panic(struct{ a, b int }{1, 2})
	case "nilmap":
		var m map[string]int
		m["a"] = 1
	case "nil":
		var f *failure
		f.code = 1
	case "assertion":
		var v any = "text"
		fmt.Println(v.(int))
	case "closed":
		c := make(chan int)
		close(c)
		close(c)
	case "again":
		defer func() { r := recover(); panic(fmt.Sprint("again: ", r)) }()
		panic("first")
	case "same":
		defer func() { r := recover(); panic(r) }()
		panic("first")
	case "nested":
		defer func() { panic("second") }()
		panic("first")
	case "goroutine":
		go func() { panic("in a goroutine") }()
		time.Sleep(time.Hour)
	case "divide":
		zero := len(os.Args) - 2
		fmt.Println(1 / zero)
	case "overflow":
		debug.SetMaxStack(1 << 16)
		recurse(0)
	case "maprace":
		m := map[int]int{}
		for i := 0; i < 4; i++ {
			go func() {
				for {
					m[1]++
				}
			}()
		}
		time.Sleep(time.Hour)
	case "unlock":
		var m sync.Mutex
		m.Unlock()
	case "assembly":
		faultInAssembly()
	case "many":
		c := make(chan int)
		for i := 0; i < 10000; i++ {
			go receive(c)
		}
		time.Sleep(200 * time.Millisecond)
		panic("many")
	case "abort":
		syscall.Kill(os.Getpid(), syscall.SIGABRT)
		time.Sleep(time.Hour)
	case "quit":
		syscall.Kill(os.Getpid(), syscall.SIGQUIT)
		time.Sleep(time.Hour)
	}
}
