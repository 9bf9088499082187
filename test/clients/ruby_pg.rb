require "pg"

STDOUT.sync = true
puts "connecting"
begin
  connection = PG.connect("#{ENV["CONNINFO"]} #{ENV["SETTINGS"]}")
  puts "connected"
  while (sql = STDIN.gets)
    connection.exec(sql)
    puts "answer"
  end
rescue PG::Error => error
  puts "error: #{error.message.split.join(" ")}"
end
