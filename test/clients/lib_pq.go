package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/lib/pq"
)

// SETTINGS

func check(err error) {
	if err != nil {
		fmt.Printf("error: %q\n", err.Error())
		os.Exit(1)
	}
}

func main() {
	connector, err := pq.NewConnector(os.Getenv("CONNINFO") + " sslmode=disable")
	check(err)
	connector.Dialer(dialer)
	fmt.Println("connecting")
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(1)
	connection, err := pool.Conn(context.Background())
	check(err)
	fmt.Println("connected")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		_, err = connection.ExecContext(context.Background(), input.Text())
		check(err)
		fmt.Println("answer")
	}
}
