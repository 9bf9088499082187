# The time of reading by number of sessions, and of the hook by number of policies.
set terminal svg size 900,420 dynamic background rgb 'white' font 'sans,12'
set output output
set multiplot layout 1,2
set grid
set key left top
set xlabel 'sessions'
set ylabel 'ms (median)'
set yrange [0:*]
plot directory.'/sessions.dat' using 1:2 with linespoints title 'keepalive\_status() fetched', \
     '' using 1:3 with linespoints title 'pg\_stat\_activity fetched', \
     '' using 1:4 with linespoints title 'keepalive\_status() in the server', \
     '' using 1:5 with linespoints title 'bare sock\_diag requests'
set xlabel 'policies, of which the last matches'
set ylabel 'microseconds in the hook (median)'
plot directory.'/policies.dat' using 1:2 with linespoints notitle
