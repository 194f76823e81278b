// A program that ends in C code, or in Go code that C code called.
package main

/*
#include <stdlib.h>
extern void called(int);
static __attribute__((noinline)) int dereference(int *p) { return *p + 1; }
static __attribute__((noinline)) int fault(int depth) { return depth ? fault(depth - 1) + 1 : dereference((int *)8); }
static __attribute__((noinline)) void call_back(int n) { called(n); }
static void end(void) { abort(); }
*/
import "C"

import (
	"os"
	"time"
)

//export called
func called(n C.int) {
	if n == 1 {
		panic("in a callback")
	}
	C.fault(2)
}

func receive(c chan int) { <-c }

func main() {
	c := make(chan int)
	for i := 0; i < 3; i++ {
		go receive(c)
	}
	time.Sleep(50 * time.Millisecond)
	switch os.Args[1] {
	case "cfault":
		C.fault(3)
	case "cabort":
		C.end()
	case "callback":
		C.call_back(1)
	case "mixed":
		C.call_back(2)
	}
}
