#!/bin/sh
# Run for each alarm: the event is JSON on standard input, its parts are ALARM_… in the environment.
cat > /dev/null
echo "$ALARM_TEXT" >> "${ALARM_LOG:-/var/log/homer-alarms.log}"
