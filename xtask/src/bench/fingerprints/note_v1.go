package main

func note(n int) { sink += 0 * n }
