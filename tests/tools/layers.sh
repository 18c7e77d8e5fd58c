#!/bin/sh
# tests/tools/layers.sh [FOLDER] - holds the object files of FOLDER (.) to the house rules, by their symbols:
#   1. a file uses functions and data only of files of a lower level (the levels are the Makefile's list: make list)
#   2. files below terminal's level never print, exit or allocate; only io.c uses FILE*
#   3. core, quant, ops, lora, model, tokenizer, text/* (inference on a bare microcontroller) use neither stdio nor a heap
#   4. no file has a variable that other files can see; files below terminal's level have no variables
# There is one check for each file and rule. The script tests itself first: it has to fail on objects that break each rule.
# Last line: `layers: N passed, N failed, N skipped`.
cd "$(dirname "$0")/../.." || exit 1
NM=${NM:-nm}
CC=${CC:-cc}
levels=$(make -s --no-print-directory list 2> /dev/null)

check() {           # check FOLDER: prints FAIL lines, then `passed failed`
    (cd "$1" && ls *.o */*.o 2> /dev/null | grep -v '^build/') | while read -r o; do
        f=$1/$o
        echo "file ${o%.o}"
        $NM -P "$f"
        # Variables have a section; constant tables of pointers are in .data.rel.ro and are not variables.
        $NM -f sysv "$f" 2> /dev/null | awk -F'|' '$7 ~ /^\.(data|bss|tdata|tbss)/ && $7 !~ /rel\.ro/ { print "variable", $1, $3 }
                                                  $3 ~ /C/ { print "variable", $1, $3 }'
    done | awk -v levels="$levels | ppo sft rm run prep" '
    function ban(name, pattern, rule,    s, bad) {
        for (s in need) {
            split(s, a, SUBSEP)
            if (a[1] == name && a[2] ~ pattern) bad = bad " " a[2]
        }
        result(name, rule, bad)
    }
    function result(name, rule, bad) {
        if (bad == "") passed++
        else { failed++; print "  FAIL  " name ".c " rule ":" bad }
    }
    BEGIN {
        n = split(levels, group, /[|]/)
        for (i = 1; i <= n; i++) {
            m = split(group[i], word, / +/)
            for (j = 1; j <= m; j++) if (word[j] != "") level[word[j]] = i - 1
        }
        print_ = "^_*(v?f?printf|f?puts|f?putc|putchar|perror|exit|abort|_Exit|quick_exit|malloc|calloc|realloc|free)(_chk)?$"
        file_ = "^_*(fopen|fopen64|fread|fwrite|fclose|fseek|fseeko|fgets|fgetc|getc|stdin|stdout|stderr|system|popen|getenv)(_chk)?$"
        any_ = "^_*(v?f?s?n?printf|s?scanf|isoc99_s?scanf)(_chk)?$"
    }
    $1 == "file" { name = $2; seen[++files] = name; next }
    $1 == "variable" {
        if ($2 ~ /^(\.|__)/) next
        variable[name] = variable[name] " " $2
        if ($3 ~ /[A-Z]/) shared[name] = shared[name] " " $2
        next
    }
    { symbol = $1; sub(/^_/, "", symbol) }
    $2 == "U" || $2 == "w" { need[name, symbol] = 1; next }
    $2 ~ /^[TWDRBVG]$/ && symbol != "main" { owner[symbol] = name }
    END {
        for (i = 1; i <= files; i++) {
            name = seen[i]; bad = ""
            if (!(name in level)) { result(name, "has no level in the Makefile", " " name); continue }
            for (s in need) {
                split(s, a, SUBSEP)
                if (a[1] == name && (a[2] in owner) && owner[a[2]] != name && level[owner[a[2]]] + 0 >= level[name] + 0)
                    bad = bad " " a[2] " of " owner[a[2]] ".c"
            }
            result(name, "(level " level[name] ") uses a file that is not below it", bad)
            if (level[name] < level["terminal"]) ban(name, print_, "prints, exits or allocates")
            if (level[name] < level["terminal"] && name != "io") ban(name, file_, "touches files")
            if (name ~ /^(core|quant|ops|text\/.*|tokenizer|lora|model)$/) ban(name, any_, "needs stdio")
            result(name, "has variables that others see", shared[name])
            if (level[name] < level["terminal"] && name != "fast/choose" && name != "fast/threads") result(name, "has variables", variable[name])   # see their banners
        }
        print passed + 0, failed + 0
    }'
}

# Files that break the rules: quant.c calls a higher level and prints, model.c has a variable and calls snprintf, rl.c opens files,
# fast/threads.c reads a table of model.c.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cat > "$work/quant.c" <<'C'
#include <stdio.h>
int model_forward(void);
int quant(void) { printf("%d", model_forward()); return 0; }
C
cat > "$work/model.c" <<'C'
#include <stdio.h>
int model_state = 1;
int model_forward(char *s, int n) { return snprintf(s, 9, "%d", n); }
C
cat > "$work/rl.c" <<'C'
#include <stdio.h>
int rl(void) { static int calls; calls++; return fopen("x", "r") != NULL; }
C
cat > "$work/core.c" <<'C'
static const char *const word[] = { "one", "two" };
const char *core(int x) { return word[x]; }
C
mkdir "$work/fast"
cat > "$work/fast/threads.c" <<'C'
extern const int model_table[];
int threads_max(void) { return model_table[1]; }
C
cat >> "$work/model.c" <<'C'
const int model_table[] = { 1, 2 };
C
for n in quant model rl core fast/threads; do $CC -c -o "$work/$n.o" "$work/$n.c" || exit 1; done
passed=0 failed=0
said=$(check "$work")
for rule in 'quant.c (level 1) uses a file that is not below it: model_forward of model.c' 'quant.c prints, exits or allocates: printf' \
            'model.c needs stdio: snprintf' 'model.c has variables that others see: model_state' 'rl.c touches files: fopen' \
            'rl.c has variables: calls'; do
    case "$said" in
        *"$rule"*) passed=$((passed + 1)) ;;
        *) failed=$((failed + 1)); echo "  FAIL  the layer check does not see: $rule" ;;
    esac
done
case "$said" in *"core.c"*) failed=$((failed + 1)); echo "  FAIL  the layer check blames a good file" ;; *) passed=$((passed + 1)) ;; esac

said=$(check "${1:-.}")
echo "$said" | sed '$d'
counts=$(echo "$said" | tail -n 1)
passed=$((passed + ${counts% *})) failed=$((failed + ${counts#* }))
echo "layers: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
