const readline = require("readline");
const { Client } = require("pg");

const settings = eval("({" + process.env.SETTINGS + "})");
const client = new Client({
  host: process.env.HOST, port: Number(process.env.PORT), user: "postgres", database: "postgres",
  ...settings,
});

function failed(error) {
  console.log("error: " + String(error.message).split(/\s+/).join(" "));
  process.exit(1);
}

client.on("error", failed);
console.log("connecting");
client.connect().then(() => {
  console.log("connected");
  readline.createInterface({ input: process.stdin }).on("line", (sql) => {
    client.query(sql).then(() => console.log("answer"), failed);
  });
}, failed);
