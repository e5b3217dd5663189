/* The bench image. */
#define MAIN krait_sched_image_main__main
#include "bare_machine/start.h"
