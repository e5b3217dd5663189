/* The test image. */
#define MAIN tests_three_lives_metal_main__main
#include "bare_machine/start.h"
