/* The numbers that kernels and methods calculate with: float32, in which values of the 16-bit types are
 * exact, and float64 for merges in that type.
 *
 * Sources of kernels and methods are built twice, the second time with REAL_F64, where their external names
 * end in _f64. The two sets share no struct that holds reals: code that is built once hands a method of
 * float64 (method_in) the kernels of float64, and never looks into its tiles or kernels.
 */
#ifndef REAL_H
#define REAL_H

#include <stdint.h>

#ifdef REAL_F64

typedef double real;
typedef uint64_t real_bits;
typedef int64_t real_signed; /* the same, for comparisons */
enum {
    REAL_MAGNITUDE = 63,  /* bits without the sign */
    REAL_TORCH_LANES = 4, /* elements of a vector as torch adds them up */
};
#define REAL_BITS_MAX UINT64_MAX
#define REAL_INFINITE 0x7ff0000000000000u
#define real_abs fabs

#define kernels_available kernels_available_f64
#define kernels_best kernels_best_f64
#define kernel_sum_scalars kernel_sum_scalars_f64
#define kernel_round kernel_round_f64
#define rank_row rank_row_f64
#define order_size order_size_f64
#define order_next order_next_f64
#define norm_round norm_round_f64
#define norm_is_exact norm_is_exact_f64
#define norm_next_part norm_next_part_f64
#define norm_donors norm_donors_f64
#define norm_donor norm_donor_f64
#define norm_pairs norm_pairs_f64
#define norm_pair norm_pair_f64
#define norm_whole norm_whole_f64
#define norm_rows norm_rows_f64
#define norm_columns norm_columns_f64
#define norm_is_kept norm_is_kept_f64
#define norm_row_length norm_row_length_f64
#define norm_is_fused norm_is_fused_f64
#define norm_packed norm_packed_f64
#define norm_vector norm_vector_f64
#define norm_add_gram norm_add_gram_f64
#define task_donors task_donors_f64
#define task_input task_input_f64
#define task_is_base_alone task_is_base_alone_f64
#define task_begin task_begin_f64
#define task_sum task_sum_f64
#define task_delta task_delta_f64
#define task_agreeing task_agreeing_f64
#define task_agreeing_weight task_agreeing_weight_f64
#define prune_stats prune_stats_f64
#define prune_order_series prune_order_series_f64
#define prune_order_has_cuts prune_order_has_cuts_f64
#define prune_order_values prune_order_values_f64
#define prune_order_count prune_order_count_f64
#define prune_order_choose prune_order_choose_f64
#define prune_check prune_check_f64
#define prune_row_length prune_row_length_f64
#define prune_delta prune_delta_f64
#define prune_values prune_values_f64
#define prune_packed prune_packed_f64
#define tiles_run tiles_run_f64
#define add_inputs add_inputs_f64
#define add_kept add_kept_f64

#define method_linear method_linear_f64
#define method_task_arithmetic method_task_arithmetic_f64
#define method_ties method_ties_f64
#define method_dare_linear method_dare_linear_f64
#define method_dare_ties method_dare_ties_f64
#define method_breadcrumbs method_breadcrumbs_f64
#define method_breadcrumbs_ties method_breadcrumbs_ties_f64
#define method_della method_della_f64
#define method_della_linear method_della_linear_f64
#define method_sce method_sce_f64
#define method_ram method_ram_f64
#define method_ramplus_tl method_ramplus_tl_f64
#define method_slerp method_slerp_f64
#define method_nuslerp method_nuslerp_f64
#define method_multislerp method_multislerp_f64
#define method_karcher method_karcher_f64
#define method_model_stock method_model_stock_f64
#define method_nearswap method_nearswap_f64
#define method_arcee_fusion method_arcee_fusion_f64
#define method_passthrough method_passthrough_f64

#else

typedef float real;
typedef uint32_t real_bits;
typedef int32_t real_signed;
enum {
    REAL_MAGNITUDE = 31,
    REAL_TORCH_LANES = 8,
};
#define REAL_BITS_MAX UINT32_MAX
#define REAL_INFINITE 0x7f800000u
#define real_abs fabsf

#endif

#define REAL_NAN (REAL_INFINITE + 1) /* the bits that stand for any NaN where magnitudes are ordered */

#endif
