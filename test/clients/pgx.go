package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v4"
)

func check(err error) {
	if err != nil {
		fmt.Printf("error: %q\n", err.Error())
		os.Exit(1)
	}
}

func main() {
	config, err := pgx.ParseConfig(os.Getenv("CONNINFO"))
	check(err)
	// SETTINGS
	fmt.Println("connecting")
	connection, err := pgx.ConnectConfig(context.Background(), config)
	check(err)
	fmt.Println("connected")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		_, err = connection.Exec(context.Background(), input.Text())
		check(err)
		fmt.Println("answer")
	}
}
