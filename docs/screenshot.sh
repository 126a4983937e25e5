#!/usr/bin/env bash
# docs/error.png: a real terminal (xterm in Xvfb) that shows what `etude check` says of a wrong spec.
# Needs: apt-get install xterm xvfb x11-apps netpbm
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=$PWD/docs/error.png
FOLDER=$(mktemp -d)
DISPLAY_NUMBER=${DISPLAY_NUMBER:-97}
Xvfb ":$DISPLAY_NUMBER" -screen 0 1024x560x24 >/dev/null 2>&1 &
SERVER=$!
trap 'kill $SERVER; rm -rf "$FOLDER"' EXIT
sleep 2
sed -e 's/0 -> 8e-5 for/0 -> 8e-3 for/' -e '0,/  parallel = {/s//  paralel = {/' \
    -e 's/multilingual 10%/multilingual 7%/' examples/llama3_405b.etude > "$FOLDER/llama3.etude"
cat > "$FOLDER/show" <<END
cd "$FOLDER"
PS1='\$ '
printf '\$ etude check llama3.etude\n'
"$PWD/.venv/bin/etude" check llama3.etude
printf '\$ '
touch "$FOLDER/shown"
sleep 60
END
LC_ALL=C.UTF-8 DISPLAY=:$DISPLAY_NUMBER xterm -fa "DejaVu Sans Mono" -fs 10 -geometry 126x34+0+0 \
    -bg '#1e1e1e' -fg '#d4d4d4' -b 8 +sb -xrm 'XTerm*faceName: DejaVu Sans Mono' \
    -e bash "$FOLDER/show" &
TERMINAL=$!
until [ -e "$FOLDER/shown" ]; do sleep 0.2; done
sleep 2
xwd -silent -root -display ":$DISPLAY_NUMBER" -out "$FOLDER/screen.xwd"
xwdtopnm -quiet "$FOLDER/screen.xwd" | pnmcrop -quiet -black | pnmremap -quiet -mapfile <(xwdtopnm -quiet "$FOLDER/screen.xwd" | pnmcolormap -quiet 32) | pnmtopng -quiet > "$OUT"
kill $TERMINAL
