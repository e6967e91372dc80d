//! Building blocks that this release does not have. Their routes answer so,
//! and lists of allowed APIs may name them.

use super::descriptor::{Block, Method, V1_ALPHA1, V1_BETA1};

/// By their names in URLs, which are those in lists as well.
pub const NAMES: &[&str] = &["workflows"];

pub const BLOCK: Block = Block {
    routes: &[],
    methods: METHODS,
    errors: &[],
};

const METHODS: &[Method] = &[
    Method::new("StartWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("GetWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("PurgeWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("TerminateWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("PauseWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("ResumeWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("RaiseEventWorkflowAlpha1", V1_ALPHA1, "workflows"),
    Method::new("StartWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("GetWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("PurgeWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("TerminateWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("PauseWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("ResumeWorkflowBeta1", V1_BETA1, "workflows"),
    Method::new("RaiseEventWorkflowBeta1", V1_BETA1, "workflows"),
];
