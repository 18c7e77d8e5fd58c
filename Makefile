# rlhf.c: the whole build. `make help` prints this page.
#
#   make                the programs ppo, sft, rm, run, prep, and the data of ./ppo data/imdb.bin
#   make test           every test; the last line counts them
#   make check          the quick half: gradients in double, and who calls whom
#   make compilers      every file under gcc, clang, tcc, musl and mingw, and for ARM, a warning being an error
#   make bench          how fast everything is, beside OpenBLAS, PyTorch and sentencepiece where they are installed: some minutes
#   make task           how hard the shipped task is: what a reader of words without their order gets right
#   make fuzz           every reader over 10,000 broken files each, under the sanitizers: some minutes
#   make kills          runs that are killed at 200 random moments and in every call that writes, and whose disk is full there: some minutes
#   make models         data/policy and data/reward anew, from nothing, checked against data/SHA256SUMS
#   make imdb DATA=train.jsonl          all three stages on real reviews, an hour or so; SCALE=small: a quarter of one
#   make dialogsum DATA=dialogsum.train.jsonl HATE=labeled_data.csv     the lab on FLAN-T5, small: summaries with less hate speech,
#                       half an hour; SCALE=small: a third of one
#   make detox DATA=realtoxicityprompts.jsonl HATE=labeled_data.csv     toxicity before and after, on RealToxicityPrompts, half an hour
#   make constitutional                 Constitutional AI in small, from nothing: critiques, revisions, a policy's own preferences, PPO
#   make clean
#
#   make OMP=0          without threads (OpenMP is found by itself)
#   make FAST=0         without a newer processor's instructions (RLHF_ISA=plain ./ppo ... does it for one run)
#   make PLAIN=1        on ops.c's definitions alone, without fast/: short loops, one thread, slow (RLHF_ISA=definition: one run)
#   make ARCH=native    for this processor only: the same digits, faster, but the programs may not run on another
#   make CC=clang       any C99 compiler
#   make CC="aarch64-linux-gnu-gcc -static"           for another machine, the programs alone; with RUN=qemu-aarch64, which runs
#                       that machine's programs, the data and the tests too
#   make CC="x86_64-w64-mingw32-gcc -static"          for Windows: ppo.exe and so on; RUN=wine likewise
#   No make?            cc -O3 -std=c99 -ffp-contract=off -o ppo ppo.c programs/ppo_*.c [!prs]*.c pe*.c re*.c rl.c st*.c fast/*.c text/*.c files/*.c -lm
#                          (-DFAST if you like) and likewise run, prep, rm with their parts, and sft, which has none: the other patterns
#                          are the library, which has no other main
#
# Never -ffast-math: it reorders our sums and deletes our NaN checks. -ffp-contract=off keeps x*y + z two roundings, so that
# every compiler gives the same digits. -fno-trapping-math changes none: nobody looks at the exception flags, and so gcc may choose
# between two floats without a branch. -falign-loops: a tile's loop that straddles cache lines is up to a tenth slower.

CC       = cc
CFLAGS   = -O3
LDLIBS   = -lm
OMP      = 1
FAST     = 1
PLAIN    = 0
ALONE    = $(filter 1,$(PLAIN))
ARCH     =
RUN      =

# The one list of files. A file calls only files that stand before a bar to its left (make check).
LEVELS   = core fast/threads | \
           quant rl agreement statistics csv io fast/amx | \
           text/unicode_tables | \
           text/unicode text/decimal | \
           text/pieces | \
           text/added text/bpe text/unigram text/encoder text/charset text/rouge | \
           text/normal text/bytelevel text/wordpiece text/beside text/train_unigram text/train_bpe text/regex | \
           text/sentencepiece text/steps text/cut | \
           text/pipeline text/model_file | \
           text/pipeline_json text/write_json | \
           text/tokenizer_json | \
           text/train | \
           tokenizer | \
           fast/x86 fast/arm fast/half files/fields files/families | \
           fast/avx512 files/torch files/config files/adapter_config | \
           fast/choose fast/wide files/llama2c files/tokenizer_files | \
           fast/matmul | \
           fast/attention | \
           ops | \
           lora peft | \
           checkpoint stack | \
           model reward state html record tensorboard constitution | \
           chart | \
           terminal config_file report_curves | \
           cli | \
           options folder | \
           train report_page | \
           report resume | \
           programs/prep_base | \
           programs/prep_grammar programs/prep_rows programs/prep_tokenizer programs/prep_show programs/prep_llama2c \
           programs/prep_rankings | \
           programs/prep_template programs/prep_where | \
           programs/prep_json programs/prep_table | \
           programs/prep_data | \
           programs/ppo_state | \
           programs/rm_quality | \
           programs/ppo_save programs/ppo_queries programs/ppo_command | \
           programs/ppo_rollout programs/ppo_judge | \
           programs/ppo_update programs/ppo_log | \
           programs/ppo_evaluate programs/ppo_memory programs/ppo_open | \
           programs/run_input programs/run_table | \
           programs/run_open programs/run_columns | \
           programs/run_batch programs/run_judge | \
           programs/run_results programs/run_feedback | \
           programs/run_critique programs/run_prefer programs/run_label programs/run_eval_samples programs/run_hatecheck \
           programs/run_tokenize programs/run_logprobs programs/run_score programs/run_generate programs/run_merge | \
           programs/run_eval | \
           programs/run_chat
LIBRARY  = $(filter-out | programs/% $(if $(ALONE),fast/%),$(subst |, | ,$(LEVELS)))
PROGRAMS = ppo sft rm run prep
# The parts of a program that has more than its own page: programs/NAME_*.
PARTS    = $(filter programs/%,$(LEVELS))
F64      = ops lora peft stack model reward rl

# What $(CC) appends to a program's name (.exe for Windows), and the word `here` if its programs run on this machine, by themselves
# or by RUN. (Probes are made in build/: programs under /tmp may not be allowed to run.)
NEW      = mkdir -p build && d=$$(mktemp -d build/probe.XXXXXX)
PROBE   := $(shell $(NEW) && echo 'int main(void) { return 0; }' > $$d/t.c && $(CC) -o $$d/t $$d/t.c > $$d/said 2>&1; \
             t=$$d/t; test ! -f $$t.exe || { t=$$t.exe; echo .exe; }; $(RUN) $$t > $$d/said 2>&1 && echo here; rm -rf $$d)
EXE     := $(filter .exe,$(PROBE))
HERE    := $(filter here,$(PROBE))
# $(call HAVE,FLAG,HEADER,CODE) is FLAG if a program with it can be compiled and linked and, where $(CC)'s programs run here, runs.
# The program includes HEADER and consists of CODE; without them it returns 0.
HAVE     = $(shell $(NEW) && \
             printf '$(if $(2),\043include <$(2)>\n)int main(void) { $(or $(3),return 0;) }\n' > $$d/t.c && \
             $(CC) $(1) -o $$d/t.exe $$d/t.c > $$d/said 2>&1 && \
             { test -z "$(HERE)" || $(RUN) $$d/t.exe > $$d/said 2>&1; } && echo $(1); rm -rf $$d)
THREADS := $(if $(ALONE)$(filter 0,$(OMP)),,$(call HAVE,-fopenmp,omp.h,return omp_get_max_threads() < 1;))
STRICT  := -std=c99 -pedantic -Wall -Wextra -Wshadow $(call HAVE,-ffp-contract=off) $(call HAVE,-fno-trapping-math) $(call HAVE,-falign-loops=64) \
           $(if $(THREADS),,$(call HAVE,-Wno-unknown-pragmas)) $(if $(ALONE),-DPLAIN)
FLAGS    = $(STRICT) $(CFLAGS) $(THREADS) $(if $(ARCH),-march=$(ARCH)) $(if $(ALONE)$(filter 0,$(FAST)),,-DFAST)
LIB      = $(LIBRARY:=.o)

# Another compiler or other flags than last time build everything anew.
ifeq ($(filter clean help list,$(MAKECMDGOALS)),)
WITH    := $(shell mkdir -p build/tests $(sort $(dir $(F64:%=build/f64/%))); echo '$(CC) $(FLAGS)' > build/now; cmp -s build/now build/flags || cp build/now build/flags)
endif

# As many compilers at once as there are processors (-j on the command line wins).
ifeq ($(filter clean,$(MAKECMDGOALS)),)
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
endif

all: $(PROGRAMS:=$(EXE)) $(if $(HERE),data/imdb.bin,no-data)
no-data:
	@echo 'data/imdb.bin is not made: this machine cannot run prep$(EXE). On the machine that can:'
	@echo '  ./prep $(IMDB_BIN)'

# Every source sees the map; programs, what they share; a room, its own header.
$(filter text/%.o tokenizer.o,$(LIB)): text/text.h text/beside.h
files/tokenizer_files.o: text/beside.h
files/families.o files/config.o: files/families.h
$(filter fast/%.o ops.o,$(LIB)): fast/fast.h lanes.h
fast/wide.o: ops.c
# options.o tells --version and time.jsonl how it was compiled.
options.o: TOLD = -DBUILD_FLAGS='"$(subst ",,$(subst ',,$(subst \,,$(CC) $(FLAGS))))"'
%.o: %.c rlhf.h base.h programs.h build/flags
	$(CC) $(FLAGS) $(TOLD) -c -o $@ $<
$(foreach p,$(PROGRAMS),$(eval $(p)$(EXE): $(patsubst %,%.o,$(filter programs/$(p)_%,$(PARTS)))))
$(foreach p,$(PROGRAMS),$(eval $(p).o $(patsubst %,%.o,$(filter programs/$(p)_%,$(PARTS))): $(wildcard programs/$(p).h)))
$(patsubst %,%.o,$(filter programs/run_eval%,$(PARTS))): programs/run_eval.h
$(PROGRAMS:=$(EXE)): %$(EXE): %.o $(LIB)
	$(CC) $(FLAGS) -o $@ $^ $(LDLIBS)

# The reviews that `./ppo data/imdb.bin` learns from: 20,000 of them, expanded from a grammar.
IMDB_BIN = grammar data/grammar.txt --out data/imdb.bin --count 20000 --seed 1
data/imdb.bin: prep$(EXE) data/grammar.txt
	$(RUN) ./prep$(EXE) $(IMDB_BIN)

# ---- tests ----

# Each C file of tests/unit and tests/golden, and bad.c of tests/fuzz, is a program of its own, build/tests/NAME. Two are built in a special way:
#   grad   every backward pass against differences, everything in double: -DF64 turns the layers' float into double
#   bad    every reader over broken files, the whole library under the address and undefined-behaviour sanitizers (fuzz: the same, longer)
TESTS    = $(notdir $(basename $(wildcard tests/unit/*.c tests/golden/*.c))) bad
SEE      = -I. -Itests -Itests/unit -Itests/fuzz
COMMA    = ,
SANITIZE = $(call HAVE,-fsanitize=address$(COMMA)undefined -fno-sanitize-recover=all)

test: all $(TESTS:%=build/tests/%$(EXE)) build/tests/shapes$(EXE)
	CC="$(CC)" RUN="$(RUN)" sh tests/tools/run.sh $(TESTS)
TEST     = $(CC) $(FLAGS) $(SEE) -o $@ $< $(LIB) $(LDLIBS)
build/tests/%$(EXE): tests/unit/%.c tests/test.h $(LIB)
	$(TEST)
build/tests/%$(EXE): tests/golden/%.c tests/golden/golden.h tests/test.h $(LIB)
	$(TEST)
build/tests/%$(EXE): tests/tools/%.c tests/test.h $(LIB)
	$(TEST)
build/f64/%.o: %.c rlhf.h lanes.h build/flags
	$(CC) $(FLAGS) -DF64 -c -o $@ $<
ALONG    = core.o quant.o text/regex.o text/charset.o text/pieces.o text/unicode.o text/unicode_tables.o $(filter fast/threads.o,$(LIB))
build/tests/grad$(EXE): tests/unit/grad.c tests/test.h $(ALONG) $(F64:%=build/f64/%.o)
	$(CC) $(FLAGS) -DF64 $(SEE) -o $@ $< $(ALONG) $(F64:%=build/f64/%.o) $(LDLIBS)
build/tests/bad$(EXE): tests/fuzz/bad.c tests/test.h rlhf.h $(LIBRARY:=.c)
	$(CC) $(STRICT) -O1 -g $(SANITIZE) $(SEE) -o $@ $< $(LIBRARY:=.c) $(LDLIBS)
build/tests/fuzz$(EXE): tests/fuzz/fuzz.c tests/fuzz/bad.c tests/fuzz/torch_files.h tests/test.h rlhf.h $(LIBRARY:=.c)
	$(CC) $(STRICT) -O1 -g $(SANITIZE) $(SEE) -o $@ $< $(LIBRARY:=.c) $(LDLIBS)
checkpoint.o $(patsubst %.c,%.o,$(wildcard files/*.c)) $(addsuffix $(EXE),build/tests/torch build/tests/bad build/tests/fuzz): files/files.h
$(addsuffix $(EXE),build/tests/torch build/tests/bad): tests/fuzz/torch_files.h
$(addsuffix $(EXE),build/tests/amx build/tests/props build/tests/memory): tests/unit/amx_model.h fast/amx.c fast/fast.h

# The quick half of the tests: gradients, and who calls whom.
check: $(LIB) $(PARTS:=.o) $(PROGRAMS:=.o) build/tests/grad$(EXE)
	$(RUN) build/tests/grad$(EXE)
	$(RUN) build/tests/grad$(EXE) flip
	+sh tests/tools/layers.sh
# Every file alone under other compilers, a warning being an error.
compilers:
	+sh tests/tools/compilers.sh
# Speed, part by part, beside peers where they are installed; none is needed to build:  make bench BENCH="products --quick"
build/tests/bench$(EXE): tests/bench/bench.c tests/bench/bench_blas.c tests/bench/bench_models.c tests/bench/bench.h $(LIB)
	$(CC) $(FLAGS) $(if $(call HAVE,-ldl),-DDLOPEN) $(SEE) -o $@ $(filter-out %.h,$^) $(LDLIBS) $(call HAVE,-ldl)
bench: build/tests/bench$(EXE) build/tests/shapes$(EXE) all
	@if command -v python3 > /dev/null; then BENCH_PREFIX="$${BENCH_PREFIX:-$(RUN)}" python3 tests/bench/bench_peers.py $(BENCH); \
	 else $(RUN) build/tests/bench$(EXE) $(BENCH); echo "PyTorch, sentencepiece and whole steps: not measured, there is no python3"; fi
# How hard the shipped task is:  make task TASK="--tokens 30"
task: build/tests/task$(EXE) data/imdb.bin
	$(RUN) build/tests/task$(EXE) $(TASK)
# Every reader over broken files, longer than `make test` does:  make fuzz FUZZ=100000
fuzz: build/tests/fuzz$(EXE)
	VERBOSE=1 $(RUN) build/tests/fuzz$(EXE) $(FUZZ)

# Runs of ppo that are killed or cannot write, and go on; a short form is in `make test`. TMPDIR=/dev/shm makes it faster.
kills: all
	CC="$(CC)" RUN="$(RUN)" KILLS=200 WRITES=1 VERBOSE=1 sh tests/programs/resume.sh

# Checkpoints of TinyLlama's and roberta-base's shape with random weights:  make shapes SHAPES="--policy /tmp/tinyllama"
shapes: build/tests/shapes$(EXE)
	$(RUN) build/tests/shapes$(EXE) $(SHAPES)

# ---- models ----

# data/policy and data/reward from nothing, with our own programs alone: the same bytes from any compiler and number of threads, and
# on any processor, since RLHF_ISA=exact takes the fastest kernel that has the plain loop's bits.
# The judge needs more reviews than the policy, or it learns them by heart: 120,000 others of the same grammar. Its "negative" is held at 0,
# so that the reward, the logit of "positive", is the log-odds; smoothed labels keep it from certainty.
POLICY   = --tied --dim 128 --layers 4 --heads 4 --kv-heads 2 --ffn 352 --positions 256 --context 160 --epochs 1 --tokens 2048 --lr 2e-3 --dtype f16
REWARD   = --dim 112 --layers 2 --heads 7 --ffn 224 --positions 130 --epochs 2 --lr 1.2e-3 --crop 0.3 --weight-decay 0.02 --batch 32 \
             --reference negative --label-smoothing 0.05 --eval-every 1000
SHA256   = $(shell command -v sha256sum || echo shasum -a 256)
models: export RLHF_ISA = exact
models: all
	rm -rf build/models && mkdir -p build/models
	$(RUN) ./prep$(EXE) tokenizer data/imdb.bin --kind sentencepiece --vocab 2048 --out build/models/policy-tokenizer
	$(RUN) ./prep$(EXE) tokenizer data/imdb.bin --kind bytelevel --vocab 2048 --out build/models/reward-tokenizer
	$(RUN) ./prep$(EXE) grammar data/grammar.txt --out build/models/reviews.bin --count 120000 --seed 2
	$(RUN) ./rm$(EXE) build/models/reviews.bin --tokenizer build/models/reward-tokenizer $(REWARD) --out build/models/reward
	$(RUN) ./sft$(EXE) data/imdb.bin --tokenizer build/models/policy-tokenizer $(POLICY) --eval-every 100 --out build/models/policy
	rm -f build/models/*/log.jsonl build/models/*/time.jsonl build/models/*/report.html
	rm -rf data/policy data/reward && cp -r build/models/policy build/models/reward data
	cd data && $(SHA256) -c SHA256SUMS

# The real thing, all three stages on real reviews. FAMILY=gpt2: TRL's sentiment notebook, a GPT-2 against a DistilBERT.
DATA     =
SCALE    = full
FAMILY   = llama
IMDB     = runs/imdb
IMDB_TOKENS_llama = sentencepiece
IMDB_TOKENS_gpt2  = gpt2
IMDB_WORDS_llama  = bytelevel
IMDB_WORDS_gpt2   = wordpiece
IMDB_SFT       = --tokens 2048 --lr 2e-3 --eval-every 100 --dim 160 --layers 4 --heads 5 --positions 256 --context 256
IMDB_SFT_llama = --tied --ffn 448
IMDB_SFT_gpt2  = --family gpt2
IMDB_RM        = --reference negative --dim 64 --layers 2 --heads 4 --ffn 128 --positions 258 --lr 1e-3 --token-dropout 0.15 --weight-decay 0.1 --batch 32
IMDB_RM_gpt2   = --family distilbert
# The notebook's numbers, but for those that have to fit models of two million weights: longer responses and larger steps.
IMDB_PPO_llama = --preset imdb-small --label positive
IMDB_PPO_gpt2  = --preset sentiment --learning-rate 3e-4 --value-learning-rate 3e-3 --mini-batch-size 32 --ppo-epochs 2 --lam 1 \
                 --cliprange-value 0 --max-grad-norm 1 --horizon 4000 --value-init zero --response-min 16 --response-max 24
IMDB_SFT_full  = --steps 1500
IMDB_RM_full   = --epochs 4
IMDB_PPO_full  = --steps 40
IMDB_SFT_small = --steps 300
IMDB_RM_small  = --epochs 1
IMDB_PPO_small = --steps 30
imdb: all
	@test -n "$(DATA)" || { echo 'make imdb: which reviews? DATA=FILE, JSONL lines {"text": ..., "label": 0 or 1}'; exit 2; }
	@test -n "$(IMDB_TOKENS_$(FAMILY))" || { echo 'make imdb: FAMILY is llama or gpt2'; exit 2; }
	rm -rf $(IMDB) && mkdir -p $(IMDB)
	$(RUN) ./prep$(EXE) data $(DATA) --out $(IMDB)/reviews.bin --labels 0=negative,1=positive --strip-html --min-length 201
	$(RUN) ./prep$(EXE) tokenizer $(IMDB)/reviews.bin --kind $(IMDB_TOKENS_$(FAMILY)) --vocab 4096 --out $(IMDB)/policy-tokenizer
	$(RUN) ./prep$(EXE) tokenizer $(IMDB)/reviews.bin --kind $(IMDB_WORDS_$(FAMILY)) --vocab 8192 --out $(IMDB)/reward-tokenizer
	$(RUN) ./rm$(EXE) $(IMDB)/reviews.bin --tokenizer $(IMDB)/reward-tokenizer $(IMDB_RM) $(IMDB_RM_$(FAMILY)) $(IMDB_RM_$(SCALE)) --out $(IMDB)/reward
	$(RUN) ./sft$(EXE) $(IMDB)/reviews.bin --tokenizer $(IMDB)/policy-tokenizer $(IMDB_SFT) $(IMDB_SFT_$(FAMILY)) $(IMDB_SFT_$(SCALE)) --out $(IMDB)/policy
	$(RUN) ./ppo$(EXE) $(IMDB)/reviews.bin --policy $(IMDB)/policy --reward $(IMDB)/reward $(IMDB_PPO_$(FAMILY)) $(IMDB_PPO_$(SCALE)) --out $(IMDB)

# The lab on FLAN-T5 and DialogSum, small and from nothing: a policy of FLAN-T5's kind learns to summarise, a judge learns hate speech from
# tweets, and PPO makes the summaries less toxic in the judge's eyes. The judge reads the summaries alone: it has never seen a dialogue.
HATE     =
LAB      = runs/dialogsum
LAB_VOCAB = 4096
LAB_SFT  = --family t5 --dim 192 --layers 3 --heads 4 --ffn 512 --positions 512 --context 448 --tokens 1024 --lr 2e-3 --eval-every 300
LAB_RM   = --family distilbert --reference hate --dim 64 --layers 2 --heads 4 --ffn 128 --positions 258 --lr 1e-3 --token-dropout 0.15 \
           --weight-decay 0.1 --batch 32 --epochs 2
LAB_PPO  = --preset dialogsum --score response --query-max 446 --response-min 60 --response-max 60 --batch-size 48 --mini-batch-size 12 \
           --ppo-epochs 2 --learning-rate 1e-3 --value-learning-rate 3e-3 --value-init zero --lam 1 --cliprange-value 0 --max-grad-norm 1 \
           --init-kl-coef 0.1 --horizon 250
LAB_SFT_full  = --epochs 5
LAB_PPO_full  = --steps 60
LAB_SFT_small = --epochs 1
LAB_PPO_small = --steps 40
dialogsum: all
	@test -n "$(DATA)" && test -n "$(HATE)" || { echo 'make dialogsum: DATA=FILE, JSONL lines {"dialogue": ..., "summary": ...}, and HATE=FILE,' \
	    'a CSV with the columns tweet and class (0 hate, 1 offensive, 2 neither)'; exit 2; }
	rm -rf $(LAB) && mkdir -p $(LAB)
	$(RUN) ./prep$(EXE) data $(DATA) --out $(LAB)/dialogues.bin --response summary --min-length 201 --max-length 1000 \
	    --template 'Summarize the following conversation.\n\n{dialogue}\n\nSummary:\n'
	$(RUN) ./prep$(EXE) data $(HATE) --out $(LAB)/tweets.bin --text tweet --label class --labels 0=hate,1=hate,2=nothate
	$(RUN) ./prep$(EXE) tokenizer $(LAB)/dialogues.bin --kind t5 --vocab $(LAB_VOCAB) --out $(LAB)/policy-tokenizer
	$(RUN) ./prep$(EXE) tokenizer $(LAB)/tweets.bin --kind bytelevel --vocab $(LAB_VOCAB) --out $(LAB)/judge-tokenizer
	$(RUN) ./rm$(EXE) $(LAB)/tweets.bin --tokenizer $(LAB)/judge-tokenizer $(LAB_RM) --out $(LAB)/judge
	$(RUN) ./sft$(EXE) $(LAB)/dialogues.bin --tokenizer $(LAB)/policy-tokenizer $(LAB_SFT) $(LAB_SFT_$(SCALE)) --out $(LAB)/policy
	$(RUN) ./ppo$(EXE) $(LAB)/dialogues.bin --policy $(LAB)/policy --reward $(LAB)/judge $(LAB_PPO) $(LAB_PPO_$(SCALE)) --out $(LAB)

# Detoxifying, small and from nothing (TRL's gpt-j-6b-toxicity.py): a policy that has read tweets and the texts of RealToxicityPrompts goes on
# with such texts, whose beginnings are toxic; the judge, which has learnt hate speech from the tweets, reads what the policy writes alone.
DETOX       = runs/detox
DETOX_SFT   = --tied --dim 160 --layers 4 --heads 5 --ffn 448 --positions 256 --context 128 --tokens 2048 --eval-every 100
DETOX_PPO   = --preset detox --batch-size 256 --mini-batch-size 64 --ppo-epochs 4 --learning-rate 1e-4 --value-learning-rate 3e-3 --horizon 2000 --steps 40
detox: all
	@test -n "$(DATA)" && test -n "$(HATE)" || { echo 'make detox: DATA=FILE, the JSONL of RealToxicityPrompts, and HATE=FILE,' \
	    'a CSV with the columns tweet and class (0 hate, 1 offensive, 2 neither)'; exit 2; }
	rm -rf $(DETOX) && mkdir -p $(DETOX)
	$(RUN) ./prep$(EXE) data $(HATE) --out $(DETOX)/tweets.bin --text tweet --label class --labels 0=hate,1=hate,2=nothate
	$(RUN) ./prep$(EXE) data $(DATA) --out $(DETOX)/texts.bin --text '{prompt.text}{continuation.text}'
	$(RUN) ./prep$(EXE) data $(DATA) --out $(DETOX)/toxic.bin --text '{prompt.text}{continuation.text}' --where 'prompt.toxicity > 0.3'
	$(RUN) ./prep$(EXE) tokenizer $(DETOX)/tweets.bin --kind bytelevel --vocab 4096 --out $(DETOX)/judge-tokenizer
	$(RUN) ./prep$(EXE) tokenizer $(DETOX)/tweets.bin --kind sentencepiece --vocab 4096 --out $(DETOX)/policy-tokenizer
	$(RUN) ./rm$(EXE) $(DETOX)/tweets.bin --tokenizer $(DETOX)/judge-tokenizer $(LAB_RM) --out $(DETOX)/judge
	$(RUN) ./sft$(EXE) $(DETOX)/tweets.bin --tokenizer $(DETOX)/policy-tokenizer $(DETOX_SFT) --lr 2e-3 --epochs 4 --out $(DETOX)/tweeter
	$(RUN) ./sft$(EXE) $(DETOX)/texts.bin --policy $(DETOX)/tweeter --context 128 --tokens 2048 --lr 1e-3 --eval-every 50 --epochs 3 --out $(DETOX)/policy
	$(RUN) ./ppo$(EXE) $(DETOX)/toxic.bin --policy $(DETOX)/policy --reward $(DETOX)/judge $(DETOX_PPO) --out $(DETOX)
	$(RUN) ./run$(EXE) eval $(DETOX)/toxic.bin $(DETOX)/policy $(DETOX)/ppo-0001 --reward $(DETOX)/judge --score response --toxicity hate --query 35 -n 25

# Constitutional AI in a small world, both phases (Bai et al. 2022). data/harmless.txt is the world: the policy learns from it to answer
# (mostly harmfully), to criticise, to revise, and to choose between two answers, which a large model learns from its many texts. From then on
# only the policy itself and data/constitution.txt say what is harmless. The judge that measures has read other texts, with labels; neither phase sees it.
CAI        = runs/constitutional
CAI_TEXTS  = lessons:40000:1 judged:6000:2 asked:1000:3 asked:1500:4 asked:512:5
CAI_RULES  = --constitution data/constitution.txt --shots 0 -n 64
CAI_WORDS  = --tokenizer $(CAI)/words --dim 64 --layers 2 --heads 4 --ffn 128 --positions 162 --lr 1e-3 --batch 32
CAI_POLICY = --tied --dim 96 --layers 4 --heads 4 --ffn 256 --positions 512 --context 256 --tokens 2048 --lr 3e-3 --epochs 1 --eval-every 200
CAI_JUDGE  = --epochs 1
CAI_SFT    = --epochs 2 --lr 5e-4 --tokens 1024
CAI_RM     = --epochs 6
CAI_PPO    = --steps 20 --batch-size 64 --mini-batch-size 32 --ppo-epochs 2 --learning-rate 2e-4 --value-learning-rate 3e-3 --value-init zero \
               --init-kl-coef 0.1 --target 6 --horizon 4000 --lam 1 --cliprange-value 0 --max-grad-norm 1 --eval-queries 64 \
               --query-max 64 --response-min 48 --response-max 48
constitutional: all
	rm -rf $(CAI) && mkdir -p $(CAI)
	for t in $(CAI_TEXTS); do n=$${t#*:}; \
	   $(RUN) ./prep$(EXE) grammar data/harmless.txt --start $${t%%:*} --count $${n%:*} --seed $${n#*:} --out $(CAI)/$${t%%:*}-$${n#*:}.bin || exit; done
	$(RUN) ./prep$(EXE) tokenizer $(CAI)/lessons-1.bin --kind sentencepiece --vocab 1024 --out $(CAI)/pieces
	$(RUN) ./prep$(EXE) tokenizer $(CAI)/lessons-1.bin --kind bytelevel --vocab 1024 --out $(CAI)/words
	$(RUN) ./sft$(EXE) $(CAI)/lessons-1.bin --tokenizer $(CAI)/pieces $(CAI_POLICY) --out $(CAI)/policy
	$(RUN) ./rm$(EXE) $(CAI)/judged-2.bin $(CAI_WORDS) $(CAI_JUDGE) --out $(CAI)/judge
	@echo 'phase 1: the policy revises its own answers, and learns the revisions'
	$(RUN) ./run$(EXE) critique $(CAI)/policy $(CAI)/asked-3.bin $(CAI_RULES) --out $(CAI)/revisions.jsonl
	$(RUN) ./prep$(EXE) data $(CAI)/revisions.jsonl --prompt prompt --response revision --out $(CAI)/revisions.bin
	$(RUN) ./sft$(EXE) $(CAI)/revisions.bin --policy $(CAI)/policy $(CAI_SFT) --out $(CAI)/revised
	@echo 'phase 2: the first policy chooses between answers of the revised one; a preference model learns this; PPO'
	$(RUN) ./run$(EXE) prefer $(CAI)/policy $(CAI)/asked-4.bin $(CAI_RULES) --writer $(CAI)/revised --out $(CAI)/preferences.jsonl
	$(RUN) ./prep$(EXE) data $(CAI)/preferences.jsonl --out $(CAI)/preferences.bin
	$(RUN) ./prep$(EXE) data $(CAI)/preferences.jsonl --prompt prompt --response chosen --out $(CAI)/prompts.bin
	$(RUN) ./rm$(EXE) $(CAI)/preferences.bin $(CAI_WORDS) $(CAI_RM) --out $(CAI)/preference-model
	$(RUN) ./ppo$(EXE) $(CAI)/prompts.bin --policy $(CAI)/revised --reward $(CAI)/preference-model $(CAI_PPO) --out $(CAI)
	@echo 'what the judge says of the answers to other requests'
	@for m in policy revised ppo-0001; do \
	   $(RUN) ./run$(EXE) generate $(CAI)/$$m $(CAI)/asked-5.bin -n 64 > $(CAI)/whole-$$m.jsonl && \
	   sed 's/\\n\\nCritiqueRequest.*/"}/' $(CAI)/whole-$$m.jsonl > $(CAI)/answers-$$m.jsonl && \
	   $(RUN) ./run$(EXE) score $(CAI)/judge $(CAI)/answers-$$m.jsonl --jsonl > $(CAI)/scores-$$m.jsonl || exit; \
	   echo "$$m: $$(grep -c '"label": "positive"' $(CAI)/scores-$$m.jsonl) of $$(grep -c . $(CAI)/scores-$$m.jsonl) answers are harmless;" \
	     "$$(sed 's/.*Assistant://' $(CAI)/answers-$$m.jsonl | sort -u | grep -c .) different ones"; done

clean:
	rm -rf $(LIB) $(PARTS:=.o) $(PROGRAMS:=.o) $(PROGRAMS) $(PROGRAMS:=.exe) data/imdb.bin build
list:
	@echo '$(LEVELS)'
help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
.PHONY: all no-data constitutional detox test check compilers bench task fuzz kills shapes models imdb dialogsum clean list help
