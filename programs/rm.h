/* rm.h - what the parts of rm share: rm.c and programs/rm_*.c. */
#ifndef RM_H
#define RM_H

#include "../programs.h"

/* ---- rm_quality.c: how good a judge's answers are ---- */

/* Answers of a judge. logits (n, labels), and of pairs (2 n, labels); name (labels). truth (n): the label, or
 * of a pair the probability that its first text is the better one, in millionths. */
typedef struct {
    const float *logits;
    const int *truth;
    int n, labels, pairs;
    const char (*name)[48];
} Answers;
/* Returns 1 if answer i is right, else 0. Of a pair, the text that is probably better has to get the higher
 * score; 0.5 if neither text is better, or if the scores are equal. */
double answer_right(const Answers *a, int i);
/* Prints and logs the expected calibration error over ten bins of confidence (Guo et al. 2017), with the bins
 * in the log. Texts: also how often which label got which answer. Pairs: also the mean margin, the score of
 * the better text minus that of the other one. */
void report_quality(const Answers *a, Log *log);

#endif
