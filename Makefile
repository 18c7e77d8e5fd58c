# rlhf.c. `make` builds the programs and the data; `make test` tests them; `make help` lists the rest.
#
#   make OMP=0          without OpenMP (it is found by itself)
#   make ARCH=native    for this processor only: the same bits, faster (the binary may not run on another)
#   make CC=clang       any C99 compiler; without make:  cc -O3 -std=c99 -ffp-contract=off -o ppo ppo.c cli.c ... -lm
#
# Never -ffast-math: it reorders our sums and deletes our NaN checks. -ffp-contract=off keeps x*y+z two roundings, so that
# every compiler gives the same digits.
CC      = cc
CFLAGS  = -O3
LDLIBS  = -lm
ARCH    =
RUN     =
HAVE    = $(shell printf 'int main(void){return 0;}' > .try.c; $(CC) $(1) -o .try .try.c >/dev/null 2>&1 && echo $(1); rm -f .try .try.c)
OMP     := $(call HAVE,-fopenmp)
ifeq ($(OMP),0)
OMP     :=
endif
STRICT  := -std=c99 -pedantic -Wall -Wextra -Wshadow $(call HAVE,-ffp-contract=off) $(if $(OMP),,$(call HAVE,-Wno-unknown-pragmas))
ALL     = $(STRICT) $(CFLAGS) $(OMP) $(if $(ARCH),-march=$(ARCH))

LIB     = core.o quant.o rl.o tokenizer.o io.o ops.o lora.o checkpoint.o model.o reward.o cli.o
PROGRAMS = ppo sft rm run prep

all: $(PROGRAMS)

%.o: %.c rlhf.h
	$(CC) $(ALL) -c -o $@ $<
$(PROGRAMS): %: %.o $(LIB)
	$(CC) $(ALL) -o $@ $^ $(LDLIBS)

tests/%: tests/%.c tests/test.h $(LIB)
	$(CC) $(ALL) -I. -o $@ $< $(LIB) $(LDLIBS)

clean:
	rm -f *.o $(PROGRAMS)
.PHONY: all clean
