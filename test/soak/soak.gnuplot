# Memory, deeds with their events, and times of monitoring queries, over the run.
set terminal svg size 900,900 dynamic background rgb 'white' font 'sans,12'
set output directory.'/soak.svg'
set multiplot layout 3,1
set grid
set key outside right
set lmargin 10
set rmargin 32
set xrange [0:*]
set xlabel 'minutes'
set ylabel 'private memory (RssAnon), kB'
set logscale y 2
plot for [i=1:6] directory.'/memory.dat' using 1:(column(i + 1)) with lines \
     title word('worker standby\_worker idle busy monitoring postmaster', i)
unset logscale y
set yrange [0:*]
set ylabel 'number'
plot directory.'/deeds.dat' using 1:2 with lines title 'deeds', \
     directory.'/events.dat' using 1:2 with lines title 'their events'
set ylabel 'ms (median of a minute)'
set y2range [0:*]
set y2tics
set ytics nomirror
plot for [name in 'status check metrics openmetrics'] directory.'/'.name.'.dat' using 1:2 with lines \
     title 'keepalive\_'.name, \
     directory.'/load.dat' using 1:2 axes x1y2 with lines dashtype 2 linecolor 'black' \
     title 'load average (right)'
