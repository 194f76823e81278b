#include "textflag.h"

// func faultInAssembly()
TEXT ·faultInAssembly(SB), NOSPLIT, $16-0
	MOVQ	$8, AX
	MOVQ	(AX), BX
	RET
